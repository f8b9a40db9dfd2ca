"""A linear model of the features, or of the plain ones among them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.experts.base import Expert, resized_parameter

# What is learned from once may take a longer step than what is rehearsed, and forgets the classes that stay away.
REPLAY_FREE_RATE = 4.0
REPLAY_FREE_MEMORY = 300  # items


class Linear(Expert):
    """Logistic or linear regression on the first `width` features; weights start at zero."""

    def __init__(self, width: int, outputs: int, *, rehearses: bool) -> None:
        super().__init__()
        self.rate = 1.0 if rehearses else REPLAY_FREE_RATE
        self.width = width
        self.rehearses = rehearses
        self.memory = None if rehearses else REPLAY_FREE_MEMORY
        self.weight = nn.Parameter(torch.zeros(outputs, width))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs [batch, outputs]."""
        plain = features if features.shape[1] == self.width else features[:, : self.width]
        return F.linear(plain, self.weight, self.bias)

    def resize(self, outputs: int) -> None:
        """Have this many outputs."""
        self.weight = resized_parameter(self.weight, outputs)
        self.bias = resized_parameter(self.bias, outputs)
