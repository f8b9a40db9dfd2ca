"""Counted randomness: every random choice in learning is keyed by (seed, version), never drawn from global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream of choices is for: streams of one version are independent."""

    REHEARSE = 0
    REMEMBER = 1
    TORCH = 2


def choices_for(seed: int, version: int, purpose: Purpose) -> np.random.Generator:
    """Return the generator of a version's choices: Philox, a counter-based generator (Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(key=[seed, version], counter=[0, 0, 0, purpose]))


@contextmanager
def torch_randomness_for(seed: int, version: int) -> Iterator[None]:
    """Key torch's global generators, which dropout draws from, and put them back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(choices_for(seed, version, Purpose.TORCH).integers(2**63)))
        yield
