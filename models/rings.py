"""Rings: buffers of the latest items, in which a new one takes the place of the oldest."""

from __future__ import annotations

import torch
from torch import Tensor


def write(ring: Tensor, values: Tensor, seen: int) -> None:
    """Write new values, [batch, ...], into a ring, [capacity, ...], that has seen this many before."""
    capacity = len(ring)
    places = torch.arange(seen, seen + len(values), device=ring.device)[-capacity:] % capacity
    ring[places] = values[-capacity:].to(ring.dtype)
