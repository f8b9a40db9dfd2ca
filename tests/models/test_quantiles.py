from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from models.quantiles import PiecewiseLinear

NUMBERS = st.lists(st.floats(-1e30, 1e30) | st.just(float("nan")), min_size=1, max_size=100)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def test_bins_fill_from_the_left_as_the_number_grows() -> None:
    encoding = PiecewiseLinear(1, bins=4)
    encoding.observe(column(*range(17)))
    assert encoding(column(-5, 0, 2, 4, 16, 99)).tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0.5, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 1, 1, 1],
        [1, 1, 1, 1],
    ]


def test_edges_move_only_when_the_count_doubles() -> None:
    encoding = PiecewiseLinear(1, bins=2)
    moves = []
    for number in range(70):
        before = encoding.edges.clone()
        encoding.observe(column(number))
        if not torch.equal(encoding.edges, before):
            moves.append(number + 1)
    assert moves == [16, 32, 64]


def test_settled_edges_stay_while_the_numbers_do_and_move_with_them() -> None:
    rng = torch.Generator().manual_seed(0)
    encoding = PiecewiseLinear(2, bins=4, window=128)
    encoding.observe(torch.rand(128, 2, dtype=torch.float64, generator=rng))
    settled = encoding.edges.clone()
    later = torch.rand(900, 2, dtype=torch.float64, generator=rng)
    later[:, 1] += 10  # only the second column has moved
    for start in range(0, 900, 10):
        encoding.observe(later[start : start + 10])
    assert torch.equal(encoding.edges[:, 0], settled[:, 0])
    assert encoding.edges[0, 1] >= 10


@pytest.mark.parametrize("bins", [2, 3, 16])
@pytest.mark.parametrize("size", [10, 1000])
def test_edges_follow_a_column_that_has_moved_far_away(bins: int, size: int) -> None:
    encoding = PiecewiseLinear(1, bins=bins, window=128)
    rng = torch.Generator().manual_seed(0)
    for shift in (0, 1000):
        for _ in range(0, 5000, size):
            encoding.observe(shift + torch.rand(size, 1, dtype=torch.float64, generator=rng))
        assert ((encoding.edges >= shift) & (encoding.edges <= shift + 1)).all()


def test_equal_numbers_are_no_reason_to_move() -> None:
    encoding = PiecewiseLinear(1, bins=4, window=16)
    encoding.observe(column(*[0.0, 1.0] * 8))
    settled = encoding.edges.clone()
    encoding.observe(column(*[0.0, 1.0] * 30))
    assert torch.equal(encoding.edges, settled)


def test_a_missing_value_is_all_zeros_and_moves_no_edge() -> None:
    encoding, same = PiecewiseLinear(1, bins=4), PiecewiseLinear(1, bins=4)
    encoding.observe(column(*range(16)))
    same.observe(column(*range(16)))
    same.observe(column(*[float("nan")] * 16))
    assert torch.equal(encoding.edges, same.edges)
    assert encoding(column(float("nan"))).tolist() == [[0, 0, 0, 0]]


@given(NUMBERS)
def test_every_stream_is_encoded_between_0_and_1_and_keeps_finite_buffers(numbers: list[float]) -> None:
    encoding = PiecewiseLinear(1, bins=3, window=32)
    for start in range(0, len(numbers), 20):
        encoding.observe(column(*numbers[start : start + 20]))
    encoded = encoding(column(*numbers))
    assert ((encoded >= 0) & (encoded <= 1)).all()
    assert all(buffer.isfinite().all() for buffer in encoding.buffers())


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_grouping_of_values_only_moves_edges_later(size: int) -> None:
    values = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    encoding = PiecewiseLinear(2, bins=4)
    for start in range(0, 64, size):
        encoding.observe(values[start : start + size])
    levels = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert torch.allclose(encoding.edges, torch.quantile(values.float().double(), levels, dim=0))
