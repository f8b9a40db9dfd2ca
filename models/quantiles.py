"""Quantiles learned from the stream, held in buffers, and the piecewise linear encoding over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import rings

UNKNOWN = 1e300  # an edge that no number reaches: before anything is known, every number lies below
MISSING = 1e38  # stands for NaN in the window: a checkpoint holds finite numbers only


class PiecewiseLinear(nn.Module):
    """Piecewise linear encoding of numbers over their quantiles (Gorishniy et al. 2022).

    Bin b of a column holds 0 below its lower edge, 1 above its upper edge, and the fraction in between. The edges are the
    quantiles of the latest `window` values. They are looked at only when the number of values seen doubles (16, 32, 64,
    ...), and, once the window is full, those of a column move only where one of them is off by more than two bins: what is
    trained on the encoding then rarely finds it changed, and every move is part of a checkpoint.
    """

    recent: Tensor
    seen: Tensor
    edges: Tensor

    first = 16

    def __init__(self, width: int, *, bins: int, window: int = 512) -> None:
        super().__init__()
        self.register_buffer("recent", torch.zeros(window, width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("edges", torch.full((bins + 1, width), UNKNOWN, dtype=torch.float64))
        self.width = bins * width

    def observe(self, values: Tensor) -> None:
        """Take in values, float64 [batch, width]; NaN is a missing value."""
        before = int(self.seen)
        after = before + len(values)
        rings.write(self.recent, values.nan_to_num(MISSING), before)
        self.seen.fill_(after)
        if after >= self.first and before.bit_length() < after.bit_length():
            recent = self.recent[:after].double()
            self._move(recent.where(recent < MISSING / 2, torch.nan))

    def forward(self, values: Tensor) -> Tensor:
        """Return the encoding of float64 [batch, width] as float32 [batch, width * bins]; a missing value is all zeros."""
        lower, upper = self.edges[:-1].T, self.edges[1:].T  # [width, bins]
        size = upper - lower
        above = values.unsqueeze(2) - lower  # [batch, width, bins]
        # Many equal values make bins of no size: these are steps.
        encoded = torch.where(size > 0, above / size.clamp(min=1e-300), (above >= 0).double())
        return encoded.clamp(0, 1).nan_to_num(0.0).float().flatten(1)

    def _move(self, values: Tensor) -> None:
        """Move the edges of the columns that need it to the quantiles of values [items, width]."""
        levels = torch.linspace(0, 1, len(self.edges), dtype=torch.float64, device=values.device)
        quantiles = torch.nanquantile(values, levels, dim=0).nan_to_num(UNKNOWN)  # [bins + 1, width]
        settling = int(self.seen) <= len(self.recent)
        stale = settling | (self._error(values, levels) > min(2 * levels[1].item(), 0.5))  # [width]
        self.edges.copy_(torch.where(stale, quantiles, self.edges))

    def _error(self, values: Tensor, levels: Tensor) -> Tensor:
        """Return how far the share of values below an edge is from its level, at the worst of a column's edges, [width].

        Equal values leave a range of shares, from those below the edge to those not above it: none of it is an error.
        """
        count = (~values.isnan()).sum(0).clamp(min=1)  # [width]
        below = torch.stack([(values < edge).sum(0) for edge in self.edges]) / count  # [bins + 1, width]
        up_to = torch.stack([(values <= edge).sum(0) for edge in self.edges]) / count
        level = levels.unsqueeze(1)
        return torch.maximum(below - level, level - up_to).amax(0)
