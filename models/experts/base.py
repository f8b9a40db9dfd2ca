"""What an expert is: one way from features to outputs, beside others that a head mixes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

Embed = Callable[[Sequence[str]], Tensor]
"""Texts -> vectors [texts, width]."""


class Expert(nn.Module, ABC):
    """Features [batch, width] -> outputs [batch, outputs]: logits of the classes, or a value on the head's scale."""

    rehearses: bool = True
    """Whether it learns from rehearsed items too, or from new ones only."""
    rate: float = 1.0
    """Factor on the learning rate of its parameters."""
    memory: int | None = None
    """Items after which it may have forgotten a class that it no longer meets; None where it does not forget."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return outputs [batch, outputs]."""

    @abstractmethod
    def resize(self, outputs: int) -> None:
        """Have this many outputs: new ones start knowing nothing, the first stay as they are."""

    def observe(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Take new items, [batch, width], their class indices and weights, [batch], into what is kept in buffers."""

    def knows(self, last_seen: Tensor, observed: Tensor) -> Tensor:
        """Return which classes it can speak of, bool [classes], by when they were last seen, int64 [classes], of all items."""
        return last_seen > (0 if self.memory is None else observed - self.memory)


def resized(rows: Tensor, count: int) -> Tensor:
    """Return a tensor with this many rows, the new ones zero."""
    grown = rows.new_zeros(count, *rows.shape[1:])
    kept = min(count, len(rows))
    grown[:kept] = rows[:kept].detach()
    return grown


def resized_parameter(parameter: nn.Parameter, rows: int) -> nn.Parameter:
    """Return a parameter with this many rows, the new ones zero."""
    return nn.Parameter(resized(parameter, rows), parameter.requires_grad)
