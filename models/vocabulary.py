"""The strings that a field has shown first, held in buffers, and their one-hot encoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMPTY = -2  # no string has this code; -1 is a missing one


class Vocabulary(nn.Module):
    """One-hot columns for the first `size` distinct strings of each field, in the order in which they appear."""

    codes: Tensor

    def __init__(self, fields: int, *, size: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.full((fields, size), EMPTY, dtype=torch.int64))
        self.width = fields * size

    def observe(self, codes: Tensor) -> None:
        """Take in strings by code, int64 [batch, fields]; -1 is a missing one."""
        known = (codes.unsqueeze(2) == self.codes).any(2) | (codes < 0)  # [batch, fields]
        for row, field in (~known).nonzero().tolist():
            self._add(field, codes[row, field])

    def forward(self, codes: Tensor) -> Tensor:
        """Return float32 [batch, fields * size]; a string that came too late, or is missing, is all zeros."""
        return (codes.unsqueeze(2) == self.codes).float().flatten(1)

    def _add(self, field: int, code: Tensor) -> None:
        places = self.codes[field]
        free = (places == EMPTY).nonzero()
        if len(free) and not (places == code).any():
            places[free[0]] = code
