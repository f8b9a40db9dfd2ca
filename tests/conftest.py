"""What many tests share: a real service on a free port, and digits to send it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from hypothesis import settings
from sklearn.datasets import load_digits

from tests.running import DIGITS, RunningService

# Speed is measured in benchmarks/, never asserted in a test: a busy machine must not fail one.
settings.register_profile("everlearn", deadline=None)
settings.load_profile("everlearn")

# A shell script starts what it puts into the background with Ctrl-C ignored, and every process below inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def digits() -> list[tuple[list[float], str]]:
    """Return scikit-learn's digits in seeded order, as (64 numbers, label)."""
    pictures, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(labels))
    return [(pictures[index].tolist(), str(labels[index])) for index in order]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run one service on vectors of 64 numbers for the tests of a module."""
    with RunningService(tmp_path_factory.mktemp("service"), DIGITS) as running:
        yield running


@pytest.fixture
def client(service: RunningService) -> Iterator[httpx.Client]:
    """Return a client of the module's service."""
    with service.client() as client:
        yield client
