"""The experts of a head by name, and the loss of those that learn by gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.experts.base import Expert
from models.experts.linear import Linear
from models.experts.mlp import MLP

ExpertName = Literal["mlp", "linear", "additive", "neighbours"]
EXPERTS: tuple[ExpertName, ...] = ("mlp", "linear", "additive", "neighbours")

NEIGHBOUR_MEMORY = 1000  # instances that the nearest neighbours are looked for among

Experts = Annotated[
    list[ExpertName],
    Field(
        min_length=1,
        description="Who answers, mixed online: mlp, linear (on the plain features) and additive (on all), which never"
        " rehearse, and the nearest neighbours of the latest instances. One alone is the plain model.",
    ),
]
Hidden = Annotated[list[PositiveInt], Field(min_length=1, description="Widths of the mlp's hidden layers.")]


def in_order(names: Sequence[ExpertName]) -> list[ExpertName]:
    """Return the experts that are named, each once, in the order in which a head holds them: neighbours last."""
    return [name for name in EXPERTS if name in names]


class TrainedExperts(nn.Module):
    """The experts that learn by gradient, by name. A linear model that stands alone rehearses: it is the plain model."""

    def __init__(self, names: Sequence[ExpertName], width: int, plain: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        named = in_order(names)
        alone = len(named) == 1
        self._names = [name for name in named if name != "neighbours"]
        for name in self._names:
            expert = MLP(width, outputs, hidden=hidden) if name == "mlp" else None
            self.add_module(name, expert or Linear(plain if name == "linear" else width, outputs, rehearses=alone))

    def __iter__(self) -> Iterator[Expert]:
        return (self.get_submodule(name) for name in self._names)  # type: ignore[misc]  # only experts were added

    def __len__(self) -> int:
        return len(self._names)

    def loss(self, features: Tensor, fresh: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the loss of each item added up over the experts that learn from it, [batch].

        `fresh`, bool [batch], tells new items; an expert that does not rehearse takes the mean over these.
        """
        total = features.new_zeros(len(features))
        new_only = fresh * (len(fresh) / fresh.sum().clamp(min=1))
        for expert in self:
            loss = loss_of(expert(features))
            total = total + (loss if expert.rehearses else loss * new_only)
        return total
