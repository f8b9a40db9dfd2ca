"""The experts of a head by name, and the loss of those that learn by gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.experts.base import Expert
from models.experts.linear import Linear
from models.experts.mlp import MLP

ValueExpertName = Literal["mlp", "linear", "additive", "neighbours"]
ClassExpertName = Literal["mlp", "linear", "additive", "bilinear", "bayes", "prototype", "neighbours"]
DEFAULT_EXPERTS: tuple[ValueExpertName, ...] = ("mlp", "linear", "additive", "neighbours")

NEIGHBOUR_MEMORY = 1000  # instances that the nearest neighbours are looked for among

ABOUT_EXPERTS = (
    "Who answers, mixed online; one alone is the plain model. mlp: a network that rehearses. linear (on the plain features)"
    " and additive (on all): rehearse only where there is no mlp. neighbours: the nearest of the latest instances."
)
ABOUT_CLASS_EXPERTS = (
    f"{ABOUT_EXPERTS} prototype: the mean of each class. bayes: naive Bayes, for texts. bilinear: knows a class from its"
    " description, before its first label."
)
ValueExperts = Annotated[list[ValueExpertName], Field(min_length=1, description=ABOUT_EXPERTS)]
ClassExperts = Annotated[list[ClassExpertName], Field(min_length=1, description=ABOUT_CLASS_EXPERTS)]
Hidden = Annotated[list[PositiveInt], Field(min_length=1, description="Widths of the mlp's hidden layers.")]


def gradient_experts(
    names: Sequence[str], width: int, plain: int, hidden: Sequence[int], outputs: int
) -> Iterator[tuple[str, Expert]]:
    """Yield the experts among these names that learn by gradient and fit every task, in order.

    Beside a network, a linear model does not rehearse: it learns no noise by heart. Without one, it is who rehearses.
    """
    if "mlp" in names:
        yield "mlp", MLP(width, outputs, hidden=hidden)
    for name, inputs in (("linear", plain), ("additive", width)):
        if name in names:
            yield name, Linear(inputs, outputs, rehearses="mlp" not in names)


class Ensemble(nn.Module):
    """Experts by name, in order."""

    def __init__(self, experts: Mapping[str, Expert]) -> None:
        super().__init__()
        self.names = list(experts)
        for name, expert in experts.items():
            self.add_module(name, expert)
        self._learning = [name for name, expert in experts.items() if any(True for _ in expert.parameters())]

    def __iter__(self) -> Iterator[Expert]:
        return map(self._expert, self.names)

    def __len__(self) -> int:
        return len(self.names)

    def each(self, features: Tensor) -> Tensor:
        """Return what each expert says, [batch, experts, outputs]."""
        said = [expert(features) for expert in self]
        return said[0].unsqueeze(1) if len(said) == 1 else torch.stack(said, 1)  # of one there is nothing to copy

    def loss(self, features: Tensor, fresh: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the loss of each item added up over the experts that learn from it by gradient, [batch].

        `fresh`, bool [batch], tells new items; an expert that does not rehearse takes the mean over these.
        """
        total = features.new_zeros(len(features))
        new_only = fresh * (len(fresh) / fresh.sum().clamp(min=1))
        for expert in map(self._expert, self._learning):
            loss = loss_of(expert(features))
            total = total + (loss if expert.rehearses else loss * new_only)
        return total

    def _expert(self, name: str) -> Expert:
        expert: Expert = self._modules[name]  # type: ignore[assignment]  # only experts were added; get_submodule is slow
        return expert
