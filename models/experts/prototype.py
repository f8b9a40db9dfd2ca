"""Class means (Rocchio 1971; nearest class mean, Mensink et al. 2013): a class is the mean of its instances' features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.experts.base import Expert, resized

SHARPNESS = 20.0  # of the softmax over cosines
PRIOR_ITEMS = 3.0  # that a description is worth, where it lies in the same space as the instances


class Prototype(Expert):
    """The cosine between an instance and each class's mean. One label makes a usable class."""

    sums: Tensor
    described: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(outputs, width))
        self.register_buffer("described", torch.zeros(outputs, width))

    def forward(self, features: Tensor) -> Tensor:
        """Return scaled cosines, [batch, outputs]."""
        means = F.normalize(self.sums + PRIOR_ITEMS * self.described)
        return SHARPNESS * F.normalize(features.detach()) @ means.T

    def observe(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add the items, each scaled to the length of its weight."""
        self.sums.index_add_(0, targets, weights.unsqueeze(1) * F.normalize(features.detach()))

    def describe(self, index: int, vector: Tensor) -> None:
        """Start a class from its description, [width], in the space of the instances."""
        self.described[index] = F.normalize(vector, dim=0)

    def knows(self, last_seen: Tensor, observed: Tensor) -> Tensor:
        """Return which classes it can speak of: those that have had labels, or a description in its space."""
        return (last_seen > 0) | self.described.any(1)

    def resize(self, outputs: int) -> None:
        """Have this many outputs."""
        self.sums, self.described = resized(self.sums, outputs), resized(self.described, outputs)
