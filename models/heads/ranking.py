"""Recommendation: what a user will choose, click or think of an item, for any item or the best of a catalogue."""

from __future__ import annotations

import json
import math
import random
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, Field, PositiveInt, Strict, StrictBool
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypedDict

from models.base import Answer, Batch, Head, Label, Scores
from models.errors import LabelError, SpecificationError
from models.experts.base import Embed, resized, resized_parameter
from models.experts.bilinear import Words
from models.inputs import InputKind, Number
from models.interactions import CONTEXT_BUCKETS, Interactions, Name, asked_of
from models.metrics import means, regression_metrics

NO_ITEM = 'the interaction is not about one item, so the label must name it: {"item": ..., "value": ...}'
LISTED = 10  # items in an answer, unless it is asked for others
MOST_WORDS = 32  # in all descriptions of an item together
USER_SCALE = 0.1  # standard deviation of a new user's vector
PRIOR_ITEMS = 10.0  # that each item is taken to have had beside its own, at the mean of all
FADING = 0.9995  # per item of feedback: what is popular is so among about the latest 2,000
LEAST_PROPENSITY = 0.01  # weights of off-policy evaluation are clipped there (Ionides 2008)

Explore = Annotated[
    float,
    Field(ge=0, lt=1, description="Share of rankings whose first item is one at random; its propensity is in the answer."),
]


class RankingAnswer(BaseModel):
    """Items, best first, their scores, and how probable it was that the first one stands there."""

    items: list[str]
    scores: list[float]
    propensity: float


class Asked(NamedTuple):
    """What a batch of interactions asks."""

    users: Tensor
    """Vectors of users in their contexts, with a bias last, [batch, width + 1]."""
    names: list[list[str]]
    """The items that are asked for; none: the whole catalogue."""


class Ranking(Head):
    """Scores u . (q + d) + b: vectors of user and context, of the item, and of its description (Koren et al. 2009).

    Tables grow when a user or an item is first seen. What an item's score is before anything is known of the user is its
    popularity. An item that is only described has the vector of its description.
    """

    takes = "tensors"
    answer_type = RankingAnswer
    decides = "items"

    user_codes: Tensor
    counts: Tensor
    sums: Tensor
    met: Tensor

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        vector: Annotated[PositiveInt, Field(description="Width of the vectors of users and items.")] = 32,
        popularity: Annotated[float, Field(ge=0, le=1, description="How much of an item's popularity is in its score.")] = 1.0,
        shrink: Annotated[
            float,
            Field(ge=0, description="How much the vectors of a user and an item are drawn to zero by each item of feedback."),
        ] = 0.03,
        explore: Explore = 0.0,
        max_users: Annotated[
            PositiveInt, Field(description="Who comes when so many are known is treated as a user of whom nothing is known.")
        ] = 100_000,
        max_items: Annotated[PositiveInt, Field(description="Feedback that would bring more items is quarantined.")] = 100_000,
    ) -> None:
        super().__init__()
        self.popularity = popularity
        self.shrink = shrink
        self.explore = explore
        self.max_users = max_users
        self.max_items = max_items
        self.items: dict[str, int] = {}
        self.descriptions: dict[str, list[str]] = {}
        self.everybody = nn.Parameter(torch.zeros(vector))
        self.contexts = nn.Embedding(CONTEXT_BUCKETS, vector)
        nn.init.zeros_(self.contexts.weight)
        self.users = nn.Parameter(torch.zeros(0, vector + 1))
        self.vectors = nn.Parameter(torch.zeros(0, vector))
        self.biases = nn.Parameter(torch.zeros(0))
        self.words = Words(vector, MOST_WORDS)
        nn.init.normal_(self.words.table.weight, std=USER_SCALE)
        self.register_buffer("user_codes", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.float64))  # [items], faded: how often feedback named it
        self.register_buffer("sums", torch.zeros(0, dtype=torch.float64))  # [items], faded: of what the feedback said
        self.register_buffer("met", torch.zeros(0, dtype=torch.bool))  # [items], whether feedback ever named it
        self._names: list[str] = []
        self._rows: dict[int, int] = {}
        self._composed: tuple[Tensor, Tensor] | None = None

    @property
    def ready(self) -> bool:
        """Whether any item is known."""
        return bool(self.items)

    @property
    def labels(self) -> list[str]:
        """The items' names in index order."""
        return self._names

    def check(self, input: InputKind) -> None:
        """Raise SpecificationError for instances that are no interactions."""
        if not isinstance(input, Interactions):
            raise SpecificationError("model.input.kind", f"this head takes interaction, not {input.kind}")

    def forward(self, features: Batch) -> Asked:
        """Return the vectors of users in their contexts, and what they ask for."""
        return Asked(self._users_of(features), asked_of(features))

    def check_class(self, name: str, descriptions: Sequence[str]) -> None:
        """Raise LabelError for an item that `declare` would not take."""
        self._check_room([name])
        self.words.check(descriptions)

    def declare(self, name: str, descriptions: Sequence[str], embed: Embed) -> None:
        """Bring an item into the catalogue before its first feedback, or describe it anew."""
        self.check_class(name, descriptions)
        self._grow_items([name])
        self.descriptions[name] = list(descriptions)
        self.words.describe(self.items[name], descriptions, embed)
        self._composed = None

    def admit(self, labels: Sequence[Label]) -> None:
        """Bring the items that labels name into the catalogue. Raises LabelError when there would be too many."""
        self._grow_items([name for label in labels if (name := self.named(label)) is not None])

    def observe(self, features: Batch, outputs: Asked | None, labels: Sequence[Label], weights: Tensor) -> None:
        """Bring new users and items in, and follow what is popular."""
        asked = asked_of(features)
        self._grow_items([self._item(label, names) for label, names in zip(labels, asked, strict=True)])
        self._grow_users(features["user"].tolist())
        places = self._places(labels, asked)
        ages = torch.arange(len(labels) - 1, -1, -1, device=places.device, dtype=torch.float64)
        faded = FADING**ages
        self.counts = (self.counts * FADING ** len(labels)).index_add(0, places, faded)
        self.met[places] = True
        self.sums = (self.sums * FADING ** len(labels)).index_add(0, places, faded * self.targets(labels).to(faded))
        self._composed = None

    def loss(self, features: Batch, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        """Return the loss of each item of feedback, [batch]."""
        self._composed = None
        asked = self(features)
        places = self._places(labels, asked.names)
        drawn = self._own(features).square().sum(1) + self.vectors[places].square().sum(1)
        return self.losses_of(asked, places, labels) + self.shrink * drawn

    def scores(self, outputs: Asked | None, labels: Sequence[Label]) -> Scores:
        """Return the task's scores, and what off-policy evaluation needs; an item that is new can't be judged."""
        if outputs is None:
            return {name: torch.full((len(labels),), torch.nan) for name in self._columns()}
        greedy = torch.tensor([self._best(user, names) for user, names in zip(outputs.users, outputs.names, strict=True)])
        nothing = torch.full((len(labels),), torch.nan)
        return {
            **self.judged(outputs, labels),
            "greedy": greedy.double(),
            **dict.fromkeys(("shown", "propensity", "reward"), nothing),
        }

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return the task's metrics, and what answering the best item first would have earned, where explored answers tell."""
        return {**self.summary(columns), **({"ips_reward": _off_policy(columns)} if self.explore else {})}

    def answers(self, outputs: Asked, top_k: int | None) -> list[Answer]:
        """Rank what is asked for, best first, cut to top_k (10). A share of rankings begins with an item at random."""
        return [self._ranked(user, names, top_k or LISTED) for user, names in zip(outputs.users, outputs.names, strict=True)]

    def kept(self, answer: Answer) -> Answer:
        """Return the first item and its propensity."""
        return {"item": answer["items"][0], "propensity": answer["propensity"]}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return what was shown first, how probable that was, and what it earned."""
        reward = self.reward(kept["item"], label)
        return {"shown": self.items.get(kept["item"], -1), "propensity": kept["propensity"], "reward": reward}

    def describe(self) -> dict[str, float]:
        """Return how many users and items are known."""
        return {"users": len(self.user_codes), "items": len(self.items)}

    # What a task says of its labels.

    @abstractmethod
    def named(self, label: Label) -> str | None:
        """Return the item that a label names by itself."""

    @abstractmethod
    def losses_of(self, asked: Asked, places: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the loss of each item of feedback, [batch]; `places` are the indices of the items that it is about."""

    @abstractmethod
    def judged(self, asked: Asked, labels: Sequence[Label]) -> Scores:
        """Return the task's scores."""

    @abstractmethod
    def summary(self, columns: Scores) -> dict[str, float]:
        """Return the task's metrics."""

    @abstractmethod
    def reward(self, item: str, label: Label) -> float:
        """Return what showing an item first earned, NaN where the label does not tell."""

    @abstractmethod
    def prior(self) -> Tensor:
        """Return the score of each item before anything is known of the user, [items]."""

    @abstractmethod
    def shown(self, scores: Tensor, everything: Tensor) -> Tensor:
        """Return scores [n] as they are answered, for scores of all that is ranked, [m]."""

    def _columns(self) -> Iterable[str]:
        return (*self.averaged, "greedy", "shown", "propensity", "reward")

    def _item(self, label: Label, asked: Sequence[str]) -> str:
        """Return the item that feedback is about. Raises LabelError where neither instance nor label names it."""
        if (name := self.named(label)) is not None:
            return name
        if len(asked) != 1:
            raise LabelError(NO_ITEM)
        return asked[0]

    def _places(self, labels: Sequence[Label], asked: Sequence[Sequence[str]]) -> Tensor:
        """Return the indices of the items that feedback is about, int64 [batch]; -1 for one that is not known."""
        names = (self._item(label, names) for label, names in zip(labels, asked, strict=True))
        return torch.tensor([self.items.get(name, -1) for name in names], device=self.vectors.device)

    def _own(self, batch: Batch) -> Tensor:
        """Return the vectors of users by themselves, with a bias last, [batch, vector + 1]; zeros for nobody known."""
        rows = torch.tensor([self._rows.get(code, -1) for code in batch["user"].tolist()], device=self.users.device)
        own: Tensor = torch.cat([self.users, self.users.new_zeros(1, self.users.shape[1])])[rows]
        return own

    def _users_of(self, batch: Batch) -> Tensor:
        """Return the vectors of users in their contexts, with a bias last, [batch, vector + 1]."""
        context = (self.contexts(batch["context"]) * batch["weights"].unsqueeze(2)).sum(1)
        return self._own(batch) + F.pad(self.everybody + context, (0, 1))

    def _of(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors [rows, vector] and biases [rows] of some items, their descriptions and popularity in them."""
        return self.vectors[rows] + self.words.of(rows), (self.biases + self.popularity * self.prior().to(self.biases))[rows]

    def _catalogue(self) -> tuple[Tensor, Tensor]:
        """Return vectors and biases of all items; kept while predictions alone are made."""
        if not torch.is_inference_mode_enabled():
            return self._of(slice(None))
        self._composed = self._composed or self._of(slice(None))
        return self._composed

    def compared(self, users: Tensor) -> Tensor:
        """Return the scores of all items for users, [batch, items]."""
        vectors, biases = self._catalogue()
        return F.linear(users[:, :-1], vectors, biases) + users[:, -1:]

    def scored(self, users: Tensor, places: Tensor) -> Tensor:
        """Return the score of one item for each user, [batch]; one that is not known is as popular as the mean of all."""
        known = places >= 0
        vectors, biases = self._of(places.clamp(min=0))
        popular = torch.where(known, biases, self.popularity * self.prior().mean().to(biases))
        return (users[:, :-1] * vectors).sum(1) * known + popular + users[:, -1]

    def _candidates(self, user: Tensor, names: Sequence[str]) -> Tensor:
        """Return the scores of what is asked for, [names], or of the whole catalogue."""
        if not names:
            return self.compared(user.unsqueeze(0))[0]
        places = torch.tensor([self.items.get(name, -1) for name in names], device=user.device)
        return self.scored(user.expand(len(names), -1), places)

    def _best(self, user: Tensor, names: Sequence[str]) -> int:
        best = int(self._candidates(user, names).argmax())
        return self.items.get(names[best], -1) if names else best

    def _ranked(self, user: Tensor, names: Sequence[str], top_k: int) -> Answer:
        scores = self._candidates(user, names)
        count = len(scores)
        best, places = scores.topk(min(top_k, count))
        order, propensity = places.tolist(), 1.0
        if self.explore and count > 1:
            order, propensity = _explored(order, count, self.explore)
            best = scores[order]
        labels = names or self.labels
        return {
            "items": [labels[place] for place in order],
            "scores": self.shown(best, scores).tolist(),
            "propensity": propensity,
        }

    def _check_room(self, names: Iterable[str]) -> list[str]:
        """Return the names that are new. Raises LabelError when there would be too many items."""
        new = [name for name in dict.fromkeys(names) if name not in self.items]
        if len(self.items) + len(new) > self.max_items:
            raise LabelError(f"item {new[-1]!r} would be one more than max_items = {self.max_items}")
        return new

    def _grow_items(self, names: Sequence[str]) -> None:
        """Bring items in that are new; their vectors start at zero. Raises LabelError when there would be too many."""
        new = self._check_room(names)
        if new:
            self.items.update(zip(new, range(len(self.items), len(self.items) + len(new)), strict=True))
            self._names += new
            self._resize_items(len(self.items))

    def _resize_items(self, count: int) -> None:
        self.vectors, self.biases = resized_parameter(self.vectors, count), resized_parameter(self.biases, count)
        self.counts, self.sums, self.met = (resized(each, count) for each in (self.counts, self.sums, self.met))
        self.words.resize(count)
        self._composed = None

    def _grow_users(self, codes: Sequence[int]) -> None:
        """Bring users in that are new, as long as there is room; their vectors start at random, or items could not follow."""
        new = [code for code in dict.fromkeys(codes) if code not in self._rows][: self.max_users - len(self._rows)]
        if not new:
            return
        first = len(self._rows)
        self._rows.update(zip(new, range(first, first + len(new)), strict=True))
        self.user_codes = torch.cat([self.user_codes, self.user_codes.new_tensor(new)])
        self.users = resized_parameter(self.users, len(self._rows))
        nn.init.normal_(self.users.data[first:, :-1], std=USER_SCALE)

    # Names and descriptions travel with the weights, as bytes in a tensor, so that a checkpoint is complete in itself.

    def get_extra_state(self) -> Tensor:
        """Return the items' names and descriptions as UTF-8 JSON, uint8 [bytes]."""
        described = {name: self.descriptions.get(name, []) for name in self.items}
        return torch.frombuffer(bytearray(json.dumps(described).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the items' names and descriptions of a checkpoint."""
        described: dict[str, list[str]] = json.loads(state.cpu().numpy().tobytes())
        self._names = list(described)
        self.items = {name: index for index, name in enumerate(described)}
        self.descriptions = {name: texts for name, texts in described.items() if texts}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shape of the checkpoint before its tensors."""
        codes = state_dict[f"{prefix}user_codes"]
        self.users = resized_parameter(self.users, len(codes))
        self.user_codes = resized(self.user_codes, len(codes))
        self._resize_items(len(state_dict[f"{prefix}counts"]))
        self._rows = {code: row for row, code in enumerate(codes.tolist())}
        super()._load_from_state_dict(state_dict, prefix, *rest)


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


class ClickLabel(TypedDict):
    """Whether an item of those that were shown was clicked."""

    item: Name
    value: StrictBool


class RatingLabel(TypedDict):
    """What an item of those that were shown is worth to the user."""

    item: Name
    value: Number


class _Valued(Ranking):
    """A ranking whose label is a value of the item that the instance asks for, or of one that the label names."""

    def named(self, label: Label) -> str | None:
        """Return the item, where the label names it."""
        return label["item"] if isinstance(label, Mapping) else None

    def parse_label(self, value: Any) -> Any:
        """Return the value, with the item that it names."""
        return value

    def check_label(self, label: Label, instance: Callable[[], Any]) -> None:
        """Raise LabelError for a value of nothing: neither label nor instance names the item."""
        if self.named(label) is None and "item" not in instance():
            raise LabelError(NO_ITEM)

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return the values, [batch]."""
        return torch.tensor([float(label["value"] if isinstance(label, Mapping) else label) for label in labels])

    def reward(self, item: str, label: Label) -> float:
        """Return the value of the item, NaN where the label is about another."""
        if isinstance(label, Mapping) and label["item"] != item:
            return math.nan
        return float(self.targets([label]))

    def outputs_of(self, asked: Asked, labels: Sequence[Label]) -> Tensor:
        """Return the score of the item that each label is about, [batch]."""
        return self.scored(asked.users, self._places(labels, asked.names))


class Clicks(_Valued):
    """Whether an item will be clicked: logistic."""

    task = "clicks"
    metric = "log_loss"
    higher_is_better = False
    averaged = ("log_loss", "accuracy")
    label_type = StrictBool | ClickLabel
    example_label: Label = True

    def losses_of(self, asked: Asked, places: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the cross-entropy, [batch]."""
        targets = self.targets(labels).to(asked.users)
        return F.binary_cross_entropy_with_logits(self.scored(asked.users, places), targets, reduction="none")

    def judged(self, asked: Asked, labels: Sequence[Label]) -> Scores:
        """Return log loss, accuracy and the probability of a click."""
        scores, targets = self.outputs_of(asked, labels), self.targets(labels).to(asked.users)
        return {
            "log_loss": F.binary_cross_entropy_with_logits(scores, targets, reduction="none"),
            "accuracy": ((scores > 0) == (targets > 0)).float(),
            "probability": scores.sigmoid(),
        }

    def losses(self, scores: Scores) -> Tensor:
        """Return how far each probability is from what happened: 0 to 1, and no more for a surprise than it is."""
        return 1 - (-scores["log_loss"]).exp()

    def summary(self, columns: Scores) -> dict[str, float]:
        """Return log loss, accuracy and AUC."""
        return {**means(columns, self.averaged), "auc": _auc(columns["probability"], columns["target"])}

    def prior(self) -> Tensor:
        """Return the log odds of a click on each item, drawn to the mean of all where few have been shown."""
        mean = (self.sums.sum() + 1) / (self.counts.sum() + 2)
        rate = (self.sums + PRIOR_ITEMS * mean) / (self.counts + PRIOR_ITEMS)
        odds: Tensor = rate.logit()
        return odds

    def shown(self, scores: Tensor, everything: Tensor) -> Tensor:
        """Return probabilities of a click."""
        return scores.sigmoid()

    def _columns(self) -> Iterable[str]:
        return (*super()._columns(), "probability")


class Ratings(_Valued):
    """What an item is worth to a user, as a number: least squares."""

    task = "ratings"
    metric = "mae"
    higher_is_better = False
    averaged = ("mae",)
    label_type = Annotated[float, Strict(), Field(allow_inf_nan=False, ge=-1e6, le=1e6)] | RatingLabel
    example_label: Label = 4.5

    def losses_of(self, asked: Asked, places: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return half the squared error, [batch]."""
        return 0.5 * (self.scored(asked.users, places) - self.targets(labels).to(asked.users)) ** 2

    def judged(self, asked: Asked, labels: Sequence[Label]) -> Scores:
        """Return absolute and squared errors."""
        errors = self.outputs_of(asked, labels) - self.targets(labels).to(asked.users)
        return {"mae": errors.abs(), "mse": errors**2}

    def losses(self, scores: Scores) -> Tensor:
        """Return absolute errors squeezed to 0..1."""
        return scores["mae"] / (1 + scores["mae"])

    def summary(self, columns: Scores) -> dict[str, float]:
        """Return MAE, RMSE and R2."""
        return regression_metrics(columns)

    def prior(self) -> Tensor:
        """Return the mean rating of each item, drawn to the mean of all where there are few."""
        total = self.counts.sum()
        mean = self.sums.sum() / total if total > 0 else total
        return (self.sums + PRIOR_ITEMS * mean) / (self.counts + PRIOR_ITEMS)

    def shown(self, scores: Tensor, everything: Tensor) -> Tensor:
        """Return the values."""
        return scores

    def _columns(self) -> Iterable[str]:
        return (*super()._columns(), "mse")


def _explored(order: list[int], count: int, share: float) -> tuple[list[int], float]:
    """Return a ranking that begins with an item at random in a share of cases, and how probable its first item was."""
    first = order[0]
    if random.random() < share:  # noqa: S311  # nobody gains by guessing it
        first = random.randrange(count)  # noqa: S311
    others = [place for place in order if place != first]
    propensity = share / count + (1 - share if first == order[0] else 0.0)
    return [first, *others][: len(order)], propensity


def _off_policy(columns: Scores) -> float:
    """Return the mean reward that showing the best item first would have had, from answers that explored.

    Self-normalised inverse propensity scoring with clipped weights (Swaminathan and Joachims 2015).
    """
    greedy, shown, propensity, reward = (
        columns[name].double().cpu().numpy() for name in ("greedy", "shown", "propensity", "reward")
    )
    told = (greedy == shown) & ~np.isnan(reward)
    weights = 1 / np.maximum(propensity[told], LEAST_PROPENSITY)
    return float((weights * reward[told]).sum() / weights.sum()) if told.any() else math.nan


def _auc(scores: Tensor, targets: Tensor) -> float:
    """Return the share of pairs of a click and none in which the click had the higher score (Mann and Whitney 1947)."""
    values, clicked = scores.double().cpu().numpy(), targets.double().cpu().numpy() > 0
    known = ~np.isnan(values)
    values, clicked = values[known], clicked[known]
    count = int(clicked.sum())
    if count in {0, len(clicked)}:
        return math.nan
    _, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[inverse]  # ties share their mean rank
    return float((ranks[clicked].sum() - count * (count + 1) / 2) / (count * (len(clicked) - count)))
