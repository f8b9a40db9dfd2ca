"""Rehearsal (experience replay): which sequence numbers to remember, and which to learn from again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Reservoir:
    """A uniform sample of everything learned so far (algorithm R, Vitter 1985), as sequence numbers: the log is the data."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._seen = 0
        self._seqs: list[int] = []

    def pick(self, count: int, choices: np.random.Generator) -> tuple[int, ...]:
        """Return `count` different sequence numbers, or all there are if these are fewer."""
        if not count or not self._seqs:
            return ()
        picked = choices.choice(len(self._seqs), size=min(count, len(self._seqs)), replace=False)
        return tuple(self._seqs[index] for index in picked)

    def remember(self, seqs: Sequence[int], choices: np.random.Generator) -> None:
        """Give each sequence number its fair chance of a place."""
        for seq in seqs:
            self._seen += 1
            if len(self._seqs) < self.capacity:
                self._seqs.append(seq)
            else:
                place = int(choices.integers(self._seen))
                if place < self.capacity:
                    self._seqs[place] = seq

    @property
    def seqs(self) -> Sequence[int]:
        """What is remembered."""
        return self._seqs

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {"seen": torch.tensor(self._seen), "seqs": torch.tensor(self._seqs, dtype=torch.int64)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        self._seen = int(tensors["seen"])
        self._seqs = tensors["seqs"].tolist()
