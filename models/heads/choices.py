"""Recommendation: which item a user will choose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import Label, Scores
from models.experts.base import Embed
from models.heads.ranking import LISTED, Asked, Ranking
from models.interactions import Name
from models.metrics import means


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
        pool = self.met.nonzero().squeeze(1)
        if len(pool) > self.negatives:
            drawn = pool[torch.randint(len(pool), (self.negatives,), device=pool.device)]
            pool = torch.unique(torch.cat([drawn, places]))
        logits = F.linear(asked.users[:, :-1], *self._of(pool))  # [batch, pool]
        among = torch.stack([self._among(pool, names, place) for names, place in zip(asked.names, places, strict=True)])
        return F.cross_entropy(logits.masked_fill(~among, -torch.inf), torch.searchsorted(pool, places), reduction="none")

    def judged(self, asked: Asked, labels: Sequence[Label]) -> Scores:
        """Return NDCG@10 and hit@10 of each choice among what was asked for, and its log loss; a new item was missed."""
        rows = [self._rank(user, names, label) for user, names, label in zip(asked.users, asked.names, labels, strict=True)]
        ranks, losses = zip(*rows, strict=True)
        rank = torch.tensor(ranks, dtype=torch.float64)
        hit = rank < LISTED
        return {"ndcg": torch.where(hit, 1 / (rank + 2).log2(), 0.0), "hit": hit.double(), "log_loss": torch.tensor(losses)}

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

    def _among(self, pool: Tensor, names: Sequence[str], place: Tensor) -> Tensor:
        """Return which items of the pool the choice was between, bool [pool]: all, or the candidates."""
        if len(names) < 2:
            return torch.ones_like(pool, dtype=torch.bool)
        candidates = torch.tensor([self.items.get(name, -1) for name in names], device=pool.device)
        return torch.isin(pool, candidates) | (pool == place)

    def _rank(self, user: Tensor, names: Sequence[str], label: str) -> tuple[float, float]:
        """Return how many items stand before the chosen one, and its log loss."""
        names = names if len(names) > 1 else []
        place = names.index(label) if label in names else self.items.get(label, -1) if not names else -1
        if place < 0:
            return math.inf, math.nan
        scores = self._candidates(user, names)
        return float((scores > scores[place]).sum()), float(scores.logsumexp(0) - scores[place])
