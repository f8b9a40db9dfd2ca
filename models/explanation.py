"""Why a model answers what it does: the Shapley values of an instance's parts, complete for every model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, comb
from typing import Literal

import torch
from torch import Tensor

from models.base import Label, OnlineModel
from models.parts import Parts

Value = Callable[[Tensor], Tensor]
"""Which parts are there, bool [coalitions, parts] -> what the model then says, float64 [coalitions]."""

Method = Literal["exact", "permutations"]


@dataclass(frozen=True, slots=True)
class Attributions:
    """What each part adds to the base value (no part is there) on the way to the explained value (all are)."""

    values: Tensor
    """float64 [parts]; their sum is `explained - base`."""
    base: float
    explained: float
    method: Method
    evaluations: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one model says what it says of one label."""

    label: Label | None
    parts: Parts
    attributions: Attributions


def explain(
    model: OnlineModel,
    instance: object,
    label: Label | None = None,
    *,
    evaluations: int,
    batch: int,
    between: Callable[[], None] = lambda: None,
) -> Explanation:
    """Explain what the model says of a label, by default the predicted one; `between` is called before each batch.

    Raises InstanceError, LabelError, and NotExplainable where the model's input or head has no answer to this.
    """
    means = model.encoder.means()
    parts = model.input.parts(instance, None if means is None else means.tolist())
    if label is None:
        label = _predicted(model, parts)

    def value(present: Tensor) -> Tensor:
        said = []
        for rows in torch.split(present, batch):
            between()
            with torch.inference_mode():
                outputs = model(model.collate([parts.keep(row) for row in rows.tolist()]))
                said.append(model.head.explained(outputs, label).double().cpu())  # [rows]
        return torch.cat(said)

    return Explanation(label, parts, shapley(value, parts.count, evaluations=evaluations))


def _predicted(model: OnlineModel, parts: Parts) -> Label | None:
    with torch.inference_mode():
        outputs = model(model.collate([parts.keep([True] * parts.count)]))
        return model.head.foremost(model.head.answers(outputs, 1)[0])


def shapley(value: Value, parts: int, *, evaluations: int, seed: int = 0) -> Attributions:
    """Share out what all parts bring together (Shapley 1953), with at most `evaluations` values, of which 4 are the least.

    Exact where all coalitions are no more than that; else the mean over seeded permutations (Castro et al. 2009;
    Strumbelj and Kononenko 2010), each with its reverse (Mitchell et al. 2022). Where there are too many parts for one
    such pair, neighbours play as one and share equally. Complete in each case: the sum telescopes.
    """
    if 2**parts <= evaluations:
        return _exact(value, parts)
    together = ceil(parts / (evaluations // 2))
    player = torch.arange(parts) // together  # [parts]
    found = _sampled(lambda present: value(present[:, player]), int(player[-1]) + 1, evaluations, seed)
    shares = found.values[player] / player.bincount()[player]
    return Attributions(shares, found.base, found.explained, found.method, found.evaluations)


def _exact(value: Value, players: int) -> Attributions:
    """Weigh every coalition."""
    coalitions = torch.arange(2**players)
    present = coalitions.unsqueeze(1).bitwise_right_shift(torch.arange(players)).bitwise_and(1).bool()  # [coalitions, players]
    said = value(present)
    sizes = present.sum(1)
    weights = torch.tensor([1 / (players * comb(players - 1, size)) for size in range(players)], dtype=torch.float64)
    shares = torch.zeros(players, dtype=torch.float64)
    for index in range(players):
        without = coalitions[~present[:, index]]
        shares[index] = (weights[sizes[without]] * (said[without + 2**index] - said[without])).sum()
    return Attributions(shares, said[0].item(), said[-1].item(), "exact", len(said))


def _sampled(value: Value, players: int, evaluations: int, seed: int) -> Attributions:
    """Average what each player adds when it comes, over orders of coming."""
    pairs = (evaluations - 2) // (2 * (players - 1))
    orders = torch.stack(list(_orders(players, pairs, seed)))  # [orders, players]
    ranks = orders.argsort(1)
    come = torch.arange(1, players).view(1, -1, 1) > ranks.unsqueeze(1)  # [orders, players - 1, players]
    ends = torch.tensor([[False], [True]]).expand(2, players)
    said = value(torch.cat([ends, come.flatten(0, 1)]))
    nobody, everybody = said[0], said[1]
    between = said[2:].view(len(orders), players - 1)
    first, last = nobody.expand(len(orders), 1), everybody.expand(len(orders), 1)
    added = torch.cat([first, between, last], 1).diff(dim=1)  # [orders, players], in the order of coming
    shares = added.gather(1, ranks).mean(0)
    return Attributions(shares, nobody.item(), everybody.item(), "permutations", len(said))


def _orders(players: int, pairs: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(pairs):
        order = torch.randperm(players, generator=generator)
        yield order
        yield order.flip(0)
