"""What an expert is: one way from features to outputs, beside others that a head mixes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Expert(nn.Module, ABC):
    """Features [batch, width] -> outputs [batch, outputs]: logits of the classes, or a value on the head's scale."""

    rehearses: bool = True
    """Whether it learns from rehearsed items too, or from new ones only."""
    rate: float = 1.0
    """Factor on the learning rate of its parameters."""
    memory: int | None = None
    """New items after which it may have forgotten a class that it no longer meets; None where rehearsal keeps it."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return outputs [batch, outputs]."""

    @abstractmethod
    def resize(self, outputs: int) -> None:
        """Have this many outputs: new ones start at zero, the first stay as they are."""


def resized(parameter: nn.Parameter, rows: int) -> nn.Parameter:
    """Return a parameter with this many rows, the new ones zero."""
    grown = parameter.new_zeros(rows, *parameter.shape[1:])
    kept = min(rows, len(parameter))
    with torch.no_grad():
        grown[:kept] = parameter[:kept]
    return nn.Parameter(grown, parameter.requires_grad)
