"""Factors on the weights of items: what the gate makes of suspicion."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from service.learning.rehearsal import Memory

NO_FACTORS: Mapping[int, float] = MappingProxyType({})


DOUBTED = 0.1
"""The factor of an item whose label is doubted, and of nothing else: it is no evidence of drift either."""


class Factors:
    """The factors that the gate set on the weights of items, as long as these may be rehearsed; 1 is not kept."""

    def __init__(self) -> None:
        self._factors: dict[int, float] = {}

    def take(self, factors: Mapping[int, float], rehearsal: Memory) -> None:
        """Take in the factors of new items, and let go of those that can't be rehearsed any more."""
        if self._factors:  # mostly there are none, and to list what is remembered takes a while
            kept = set(rehearsal.seqs)
            self._factors = {seq: factor for seq, factor in self._factors.items() if seq in kept}
        self._factors |= factors

    def of(self, seq: int) -> float:
        """Return an item's factor."""
        return self._factors.get(seq, 1.0)

    def doubts(self, seq: int) -> bool:
        """Return whether an item's label is doubted."""
        return self.of(seq) <= DOUBTED

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors; none where there is nothing to say."""
        if not self._factors:
            return {}
        values = torch.tensor(list(self._factors.values()), dtype=torch.float64)
        return {"seqs": torch.tensor(list(self._factors), dtype=torch.int64), "values": values}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        pairs = zip(tensors["seqs"].tolist(), tensors["values"].tolist(), strict=True) if tensors else ()
        self._factors = dict(pairs)
