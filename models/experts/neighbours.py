"""Nearest neighbours among the latest instances, weighted by the inverse square of their distance (Shepard 1968)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import rings
from models.experts.base import Expert

NEIGHBOURS = 7
CLOSEST = 0.03  # added to a distance, in squares: one equal instance must not silence six near ones
DOUBT = 0.02  # probability that is spread over all classes


class NeighbourMemory(nn.Module):
    """The plain features and targets of the latest `capacity` items, in buffers."""

    features: Tensor
    targets: Tensor
    seen: Tensor

    def __init__(self, width: int, capacity: int, target: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(capacity, width))
        self.register_buffer("targets", torch.zeros(capacity, dtype=target))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.width = width

    def observe(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Remember items, [batch, features] and [batch]; the oldest go. One that weighs less than 1 may not be remembered."""
        if bool((weights < 1).any()):
            taken = torch.rand(len(weights)) < weights.cpu()
            features, targets = features[taken.to(features.device)], targets[taken.to(targets.device)]
        seen = int(self.seen)
        rings.write(self.features, features[:, : self.width].detach(), seen)
        rings.write(self.targets, targets, seen)
        self.seen += len(targets)

    def nearest(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights, adding up to 1, and the targets of the nearest items, both [batch, neighbours]."""
        held = min(int(self.seen), len(self.targets))
        known = self.features[:held]
        distances = torch.cdist(features[:, : self.width], known)  # [batch, held]
        closest, places = distances.topk(min(NEIGHBOURS, held), largest=False)
        weights = 1 / (closest.square() + CLOSEST**2)
        return weights / weights.sum(1, keepdim=True), self.targets[places]


class ClassNeighbours(Expert):
    """The classes of the nearest instances, as log probabilities."""

    def __init__(self, width: int, outputs: int, *, capacity: int) -> None:
        super().__init__()
        self.memory = capacity
        self.outputs = outputs
        self.items = NeighbourMemory(width, capacity, torch.int64)

    def forward(self, features: Tensor) -> Tensor:
        """Return log probabilities [batch, outputs]."""
        doubt = features.new_full((features.shape[0], self.outputs), DOUBT / max(1, self.outputs))
        if not self.items.seen:
            return doubt.log()
        weights, targets = self.items.nearest(features)
        return torch.log(doubt.scatter_add(1, targets, (1 - DOUBT) * weights))

    def resize(self, outputs: int) -> None:
        """Have this many outputs."""
        self.outputs = outputs

    def observe(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Remember new items and their class indices."""
        self.items.observe(features, targets, weights)


class ValueNeighbours(nn.Module):
    """The weighted mean of the nearest instances' values."""

    def __init__(self, width: int, *, capacity: int) -> None:
        super().__init__()
        self.items = NeighbourMemory(width, capacity, torch.float64)

    def forward(self, features: Tensor) -> Tensor:
        """Return values, float64 [batch]; NaN before the first item."""
        if not self.items.seen:
            return features.new_full((features.shape[0],), torch.nan, dtype=torch.float64)
        weights, targets = self.items.nearest(features)
        return (weights * targets).sum(1)

    def observe(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Remember new items and their values."""
        self.items.observe(features, targets, weights)
