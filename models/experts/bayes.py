"""Multinomial naive Bayes (McCallum and Nigam 1998): what words a class uses, from counts alone."""

from __future__ import annotations

import torch
from torch import Tensor

from models.experts.base import Expert, resized

SMOOTHING = 0.1  # added to each count, in units of the mean of all counts
LENGTH = 20.0  # of an item: words of one text do not come independently, so that all of them must not be believed in full


class Bayes(Expert):
    """Sums of each class's features, taken as counts; negative ones count as none. One label makes a usable class."""

    sums: Tensor
    items: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(outputs, width))
        self.register_buffer("items", torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return log probabilities but for a constant, [batch, outputs]."""
        counts = self.sums + SMOOTHING * self.sums.sum().clamp(min=1) / self.sums.numel()
        likelihoods = (counts / counts.sum(1, keepdim=True)).log()
        return LENGTH * _spread(features) @ likelihoods.T + (self.items + 1).log()

    def observe(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Count the items' features in, each item by its weight."""
        self.sums.index_add_(0, targets, weights.unsqueeze(1) * _spread(features))
        self.items.index_add_(0, targets, weights)

    def resize(self, outputs: int) -> None:
        """Have this many outputs."""
        self.sums, self.items = resized(self.sums, outputs), resized(self.items, outputs)


def _spread(features: Tensor) -> Tensor:
    """Return features [batch, width] that add up to 1 for each item."""
    counts = features.detach().clamp(min=0)
    return counts / counts.sum(1, keepdim=True).clamp(min=1e-12)
