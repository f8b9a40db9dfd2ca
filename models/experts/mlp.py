"""A multilayer perceptron beside a linear skip connection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.experts.base import Expert, resized_parameter


class MLP(Expert):
    """Linear, LayerNorm (Ba et al. 2016), ReLU per hidden layer; the last one and the features feed the outputs.

    The output weights start at zero, so that the first answers are those of a model that knows nothing.
    """

    def __init__(self, width: int, outputs: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [width, *hidden]
        self.layers = nn.ModuleList(nn.Linear(wide, next_) for wide, next_ in zip(widths, hidden, strict=False))
        self.norms = nn.ModuleList(nn.LayerNorm(wide) for wide in hidden)
        self.weight = nn.Parameter(torch.zeros(outputs, widths[-1]))
        self.skip = nn.Parameter(torch.zeros(outputs, width))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs [batch, outputs]."""
        hidden = features
        for layer, norm in zip(self.layers, self.norms, strict=True):
            hidden = torch.relu(norm(layer(hidden)))
        return F.linear(hidden, self.weight) + F.linear(features, self.skip, self.bias)

    def resize(self, outputs: int) -> None:
        """Have this many outputs."""
        self.weight = resized_parameter(self.weight, outputs)
        self.skip = resized_parameter(self.skip, outputs)
        self.bias = resized_parameter(self.bias, outputs)
