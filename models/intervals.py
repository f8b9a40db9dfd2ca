"""Intervals around predicted numbers that hold what they promise, also when the data changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConformalInterval(nn.Module):
    """The half width that `coverage` of the errors stay within, followed online whatever the data does.

    Quantile tracking (Angelopoulos, Candes and Tibshirani 2023, after Gibbs and Candes 2021): an error outside widens the
    interval by `coverage` steps, one inside narrows it by 1 - `coverage` steps, so that over any long run the share inside is
    the promised one. A step is a share of the typical error, and falls (Angelopoulos, Barber and Bates 2024) to a least
    one with which drift is followed.
    """

    radius: Tensor
    typical: Tensor
    items: Tensor

    first_step, last_step = 1.0, 0.03
    falling = 0.6  # power of the number of items by which the steps fall
    fading_items = 100  # of the typical error
    limit = 10.0  # typical errors that an error counts as at most: a wild label must not widen what comes after it

    def __init__(self, coverage: float) -> None:
        super().__init__()
        self.coverage = coverage
        self.register_buffer("radius", torch.zeros((), dtype=torch.float64))  # in typical errors
        self.register_buffer("typical", torch.zeros((), dtype=torch.float64))
        self.register_buffer("items", torch.zeros((), dtype=torch.int64))

    def forward(self) -> Tensor:
        """Return the half width, a float64 number; NaN before the first error."""
        return torch.where(self.items > 0, self.radius * self.typical, torch.nan)

    def observe(self, errors: Tensor) -> None:
        """Follow the absolute errors of items that have been judged, float64 [batch], one after the other."""
        radius, typical, items = self.radius.item(), self.typical.item(), int(self.items)
        for error in errors.tolist():
            tame = min(error, self.limit * typical) if typical > 0 else error
            typical += (tame - typical) / min(items + 1, self.fading_items)
            items += 1
            step = max(self.last_step, self.first_step / items**self.falling)
            radius = max(0.0, radius + step * (self.coverage - (error <= radius * typical)))
        self.radius.fill_(radius)
        self.typical.fill_(typical)
        self.items.fill_(items)
