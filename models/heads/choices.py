"""Recommendation: which item a user will choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import Label, Scores
from models.errors import LabelError
from models.experts.base import Embed
from models.heads.ranking import LISTED, Asked, Ranking
from models.interactions import Name
from models.metrics import gain, means

LEAST = 1e-30  # probability: less is no float that an answer holds


class Choices(Ranking):
    """Which item will be chosen, out of the candidates or of all: softmax, sampled where the catalogue is large."""

    task = "ranking"
    metric = "ndcg"
    higher_is_better = True
    averaged = ("ndcg", "hit", "log_loss")
    label_type = Name
    example_label = "i3"

    novelty = 0.95
    """Share of the items that a new one is taken to be more popular than (optimism, Sutton and Barto 1998)."""
    negatives = 1000
    """Items that a choice out of a larger catalogue is compared with, drawn alike (Jean et al. 2015)."""

    def parse_label(self, value: str) -> str:
        """Return the item's name."""
        return value

    def check_label(self, label: Label, instance: Callable[[], Any]) -> None:
        """Raise LabelError for a choice that is not one of the candidates."""
        candidates = instance().get("candidates")
        if candidates and label not in candidates:
            raise LabelError(f"{label!r} is not one of the candidates")

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return 1 for each choice, [batch]."""
        return torch.ones(len(labels))

    def named(self, label: Label) -> str | None:
        """Return the item."""
        return str(label)

    def declare(self, name: str, descriptions: Sequence[str], embed: Embed) -> None:
        """Bring an item into the catalogue; a new one is taken to be popular, which fades as other items are chosen."""
        is_new = name not in self.items
        super().declare(name, descriptions, embed)
        if is_new and self.met.any():
            self.counts[self.items[name]] = self.counts[self.met].quantile(self.novelty)

    def losses_of(self, asked: Asked, places: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the cross-entropy of each choice, [batch]; what nobody has chosen yet is not taught that it never is."""
        drawn = self.met.nonzero().squeeze(1)
        if len(drawn) > self.negatives:
            drawn = drawn[torch.randint(len(drawn), (self.negatives,), device=drawn.device)]
        others = [self._known(names) if names else drawn for names in map(_candidates, asked.names)]
        pool = torch.unique(torch.cat([places, *others]))
        logits = F.linear(asked.users[:, :-1], *self._of(pool))  # [batch, pool]
        among = torch.stack([torch.isin(pool, own) for own in others]) | (pool == places.unsqueeze(1))
        return F.cross_entropy(logits.masked_fill(~among, -torch.inf), torch.searchsorted(pool, places), reduction="none")

    def judged(self, asked: Asked, labels: Sequence[Label]) -> Scores:
        """Return NDCG@10 and hit@10 of each choice among what was asked for, and its log loss; a new item was missed."""
        rows = [self._rank(user, names, label) for user, names, label in zip(asked.users, asked.names, labels, strict=True)]
        ranks, losses = zip(*rows, strict=True)
        gains = torch.tensor([gain(rank) for rank in ranks], dtype=torch.float64)
        return {"ndcg": gains, "hit": (gains > 0).double(), "log_loss": torch.tensor(losses)}

    def worth(self, items: Sequence[str], scores: Sequence[float], label: Label) -> dict[str, float]:
        """Return NDCG@10 and hit@10 of a list that the item could be missing from; and its log loss where it is there."""
        if len(items) < 2 or (label not in items and len(items) < LISTED):
            return {}
        if label not in items:
            return {"ndcg": 0.0, "hit": 0.0}
        place = items.index(label)
        return {"ndcg": gain(place), "hit": 1.0, "log_loss": -math.log(max(scores[place], LEAST))}

    def losses(self, scores: Scores) -> Tensor:
        """Return 1 - NDCG@10."""
        return 1 - scores["ndcg"].nan_to_num(0)

    def summary(self, columns: Scores) -> dict[str, float]:
        """Return the means of the scores."""
        return means(columns, self.averaged)

    def reward(self, item: str, label: Label) -> float:
        """Return 1 where the item was chosen, else 0."""
        return float(item == label)

    def prior(self) -> Tensor:
        """Return the log share of each item in recent choices."""
        return ((self.counts + 1) / (self.counts.sum() + 1)).log()

    def shown(self, scores: Tensor, everything: Tensor) -> Tensor:
        """Return probabilities of being chosen."""
        return (scores - everything.logsumexp(0)).exp()

    def _known(self, names: Sequence[str]) -> Tensor:
        """Return the indices of those of the items that are known, int64 [known]."""
        known = [self.items[name] for name in names if name in self.items]
        return torch.tensor(known, dtype=torch.int64, device=self.vectors.device)

    def _rank(self, user: Tensor, names: Sequence[str], label: str) -> tuple[float, float]:
        """Return how many items stand before the chosen one, half of those that are as good as it, and its log loss."""
        names = _candidates(names)
        place = names.index(label) if label in names else self.items.get(label, -1) if not names else -1
        if place < 0:
            return math.inf, math.nan
        scores = self._candidates(user, names)
        before, equal = (scores > scores[place]).sum(), (scores == scores[place]).sum() - 1
        return float(before + equal / 2), float(scores.logsumexp(0) - scores[place])


def _candidates(names: Sequence[str]) -> Sequence[str]:
    """Return what a choice was between; none: the whole catalogue, of which an instance may ask for one item."""
    return names if len(names) > 1 else []
