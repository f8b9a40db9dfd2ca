from __future__ import annotations

import torch
from hypothesis import given, strategies as st

from models import rings


@given(st.lists(st.integers(0, 12), max_size=10), st.integers(1, 8))
def test_a_ring_holds_the_latest_values_however_they_were_grouped(groups: list[int], capacity: int) -> None:
    ring, seen = torch.zeros(capacity, dtype=torch.int64), 0
    for size in groups:
        rings.write(ring, torch.arange(seen + 1, seen + size + 1), seen)
        seen += size
    latest = list(range(max(1, seen - capacity + 1), seen + 1))
    assert sorted(value for value in ring.tolist() if value) == latest
