"""Low-rank adaptation: a frozen weight and a trained correction of low rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """W -> W + B A / rank, with A [rank, inputs] and B [outputs, rank] (LoRA, Hu et al. 2021). B starts at zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = len(weight), weight[0].numel()
        self.rank = min(rank, outputs, inputs)
        self.down = nn.Parameter(torch.empty(self.rank, inputs, device=weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, self.rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight, in the weight's shape."""
        return weight + (self.up @ self.down).view_as(weight) / self.rank
