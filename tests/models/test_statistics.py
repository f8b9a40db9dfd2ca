from __future__ import annotations

import torch
from hypothesis import given, settings, strategies as st

from models.statistics import RunningMoments

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=25)


@settings(deadline=None)
@given(values, st.integers(1, 24))
def test_chunks_of_any_size_give_the_moments_of_the_whole(numbers: list[float], size: int) -> None:
    column = torch.tensor(numbers, dtype=torch.float64)[:, None]
    moments = RunningMoments(1)
    for chunk in column.split(size):
        moments.observe(chunk)
    assert torch.allclose(moments.mean, column.mean(0), rtol=1e-6, atol=1e-6)
    if column.std() > 1e-3:
        assert torch.allclose(moments.std, column.std(0), rtol=1e-4)


def test_missing_values_count_nowhere() -> None:
    moments = RunningMoments(2)
    moments.observe(torch.tensor([[1.0, torch.nan], [3.0, torch.nan]], dtype=torch.float64))
    assert moments.count.tolist() == [2, 0]
    assert moments.mean.tolist() == [2, 0]
    assert moments.std[1] == 1


def test_one_wild_value_does_not_flatten_all_others() -> None:
    moments = RunningMoments(1)
    moments.observe(torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    before = moments.std.item()
    moments.observe(torch.tensor([[1e30]], dtype=torch.float64))
    assert moments.std.item() < 1.5 * before


def test_a_shift_of_the_world_is_followed() -> None:
    moments = RunningMoments(1)
    moments.observe(torch.zeros(50, 1, dtype=torch.float64))
    for _ in range(400):
        moments.observe(torch.full((5, 1), 100.0, dtype=torch.float64))
    assert moments.mean.item() > 50


def test_a_score_is_cut_and_a_column_that_never_varied_is_not_divided_by_zero() -> None:
    moments = RunningMoments(1)
    moments.observe(torch.full((10, 1), 7.0, dtype=torch.float64))
    scores = moments.standardise(torch.tensor([[7.0], [8.0], [1e30]], dtype=torch.float64), 5.0)
    assert scores.flatten().tolist() == [0, 1, 5]


def test_the_deviation_is_that_of_a_loaded_state_at_once() -> None:
    moments, loaded = RunningMoments(2), RunningMoments(2)
    moments.observe(torch.tensor([[1.0, 5.0], [4.0, 9.0]], dtype=torch.float64))
    loaded.observe(torch.tensor([[0.0, 0.0], [90.0, 70.0]], dtype=torch.float64))
    loaded.load_state_dict(moments.state_dict())
    assert torch.equal(loaded.std, moments.std)
