from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from models.intervals import ConformalInterval


def covered(interval: ConformalInterval, errors: np.ndarray) -> np.ndarray:
    """Return which errors were inside the interval that was there before them."""
    inside = []
    for error in errors:
        inside.append(error <= interval().item())  # nothing is inside NaN
        interval.observe(torch.tensor([error], dtype=torch.float64))
    return np.array(inside)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_the_promised_share_is_inside_whatever_the_scale_and_while_it_drifts(coverage: float) -> None:
    generator = np.random.default_rng(0)
    scale = np.concatenate([np.full(1000, 1e-3), np.full(1000, 5e-3), np.geomspace(5e-3, 1.0, 1000), np.full(1000, 0.1)])
    inside = covered(ConformalInterval(coverage), np.abs(generator.normal(size=4000)) * scale)
    assert inside[2000:].mean() == pytest.approx(coverage, abs=0.02)


def test_the_width_is_that_of_the_errors_quantile() -> None:
    interval = ConformalInterval(0.9)
    interval.observe(torch.from_numpy(np.abs(np.random.default_rng(0).normal(size=5000))))
    assert interval().item() == pytest.approx(1.645, rel=0.15)


def test_nothing_is_known_before_the_first_error() -> None:
    assert ConformalInterval(0.9)().isnan()


def test_a_wild_error_does_not_widen_what_comes_after_it() -> None:
    interval = ConformalInterval(0.9)
    interval.observe(torch.ones(200, dtype=torch.float64))
    before = interval().item()
    interval.observe(torch.tensor([1e30], dtype=torch.float64))
    assert interval().item() < 1.2 * before


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 59))
def test_items_count_one_after_the_other_however_they_are_batched(errors: list[float], cut: int) -> None:
    whole, parts = ConformalInterval(0.9), ConformalInterval(0.9)
    values = torch.tensor(errors, dtype=torch.float64)
    whole.observe(values)
    for part in (values[:cut], values[cut:]):
        parts.observe(part)
    assert whole.state_dict() == parts.state_dict()
    assert whole().isfinite()
