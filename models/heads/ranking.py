"""Recommendation: what a user will choose, click or think of an item, for any item or the best of a catalogue."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Answer, Batch, Head, Label, Scores
from models.encoders.text import sentence_embedding
from models.errors import LabelError, SpecificationError
from models.experts.base import Embed, resized, resized_parameter
from models.experts.bilinear import ClassTexts, Vectors, Words
from models.exploration import explored, off_policy
from models.inputs import InputKind
from models.interactions import CONTEXT_BUCKETS, Interactions, asked_of

NO_ITEM = 'the interaction is not about one item, so the label must name it: {"item": ..., "value": ...}'
LISTED = 10  # items in an answer, unless it is asked for others
MOST_WORDS = 32  # in all descriptions of an item together
USER_SCALE = 0.1  # standard deviation of a new user's vector
PRIOR_ITEMS = 10.0  # that each item is taken to have had beside its own, at the mean of all
FADING = 0.9995  # per item of feedback: what is popular is so among about the latest 2,000

Explore = Annotated[
    float,
    Field(ge=0, lt=1, description="Share of rankings whose first item is one at random; propensities are in the answer."),
]


class RankingAnswer(BaseModel):
    """Items, best first but for a first one that explores, and of each its score and its propensity."""

    items: list[str]
    scores: list[float]
    propensities: Annotated[
        list[float], Field(description="How probable it was that the item stands in its place: 1 where nothing is explored.")
    ]


class Asked(NamedTuple):
    """What a batch of interactions asks."""

    users: Tensor
    """Vectors of users in their contexts, with a bias last, [batch, width + 1]."""
    names: list[list[str]]
    """The items that are asked for; none: the whole catalogue."""


class Ranking(Head):
    """Scores u . (q + W d) + b: vectors of user and context, of the item, and of its description (Koren et al. 2009).

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
        descriptions: Annotated[
            str,
            Field(
                description='How descriptions of items are read. "words": learned word vectors; else a sentence-transformers'
                " model, by its local directory or name on the hub."
            ),
        ] = "words",
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
        self.max_items = self.most_classes = max_items
        self.items: dict[str, int] = {}
        self.descriptions: dict[str, list[str]] = {}
        self.everybody = nn.Parameter(torch.zeros(vector))
        self.contexts = nn.Embedding(CONTEXT_BUCKETS, vector)
        nn.init.zeros_(self.contexts.weight)
        self.users = nn.Parameter(torch.zeros(0, vector + 1))
        self.vectors = nn.Parameter(torch.zeros(0, vector))
        self.biases = nn.Parameter(torch.zeros(0))
        self.texts, self.reads = _reading(descriptions, vector)
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
        self.texts.check(descriptions)

    def declare(self, name: str, descriptions: Sequence[str], embed: Embed) -> None:
        """Bring an item into the catalogue before its first feedback, or describe it anew."""
        self.check_class(name, descriptions)
        self._grow_items([name])
        self.descriptions[name] = list(descriptions)
        self.texts.describe(self.items[name], descriptions, embed)
        self._composed = None

    def classes_of(self, label: Label) -> Sequence[str]:
        """Return the item, where the label names it."""
        name = self.named(label)
        return [] if name is None else [name]

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
        faded = FADING**ages * weights.double()
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
        greedy = [self._best(user, names) for user, names in zip(outputs.users, outputs.names, strict=True)]
        nothing = torch.full((len(labels),), torch.nan)
        return {
            **self.judged(outputs, labels),
            "greedy": torch.tensor(greedy, dtype=torch.float64),
            **dict.fromkeys(("shown", "propensity", "reward"), nothing),
        }

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return the task's metrics, and what answering the best item first would have earned, where explored answers tell."""
        return {**self.summary(columns), **({"ips_reward": off_policy(columns)} if self.explore else {})}

    def answers(self, outputs: Asked, top_k: int | None) -> list[Answer]:
        """Rank what is asked for, best first, cut to top_k (10). A share of rankings begins with an item at random."""
        return self._rankings(outputs, top_k or LISTED, self.explore)

    def settled(self, outputs: Asked) -> list[Answer]:
        """Return the best item of what each asks for: nothing is explored."""
        return self._rankings(outputs, 1, 0.0)

    def kept(self, answer: Answer) -> Answer:
        """Return the first ten items with their scores, and the propensity of the first."""
        first = {name: answer[name][:LISTED] for name in ("items", "scores")}
        return {**first, "propensity": answer["propensities"][0]}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return what the answer was worth, what was shown first, how probable that was, and what it earned."""
        first = kept["items"][0]
        shown = {
            "shown": self.items.get(first, math.nan),
            "propensity": kept["propensity"],
            "reward": self.reward(first, label),
        }
        return {**self.worth(kept["items"], kept["scores"], label), **shown}

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
    def worth(self, items: Sequence[str], scores: Sequence[float], label: Label) -> dict[str, float]:
        """Return the task's scores of an answer that was served, as far as its first ten items tell them."""

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
        return self.vectors[rows] + self.reads(self.texts.of(rows)), (
            self.biases + self.popularity * self.prior().to(self.biases)
        )[rows]

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

    def _best(self, user: Tensor, names: Sequence[str]) -> float:
        """Return the index of the best item, NaN where it is not known: it is then equal to no other."""
        best = int(self._candidates(user, names).argmax())
        return self.items.get(names[best], math.nan) if names else best

    def _rankings(self, asked: Asked, top_k: int, explore: float) -> list[Answer]:
        return [self._ranked(user, names, top_k, explore) for user, names in zip(asked.users, asked.names, strict=True)]

    def _ranked(self, user: Tensor, names: Sequence[str], top_k: int, explore: float) -> Answer:
        scores = self._candidates(user, names)
        count = len(scores)
        best, places = scores.topk(min(top_k, count))
        order, propensities = places.tolist(), [1.0] * len(places)
        if explore and count > 1:
            order, propensities = explored(order, count, explore)
            best = scores[order]
        labels = names or self.labels
        return {
            "items": [labels[place] for place in order],
            "scores": self.shown(best, scores).tolist(),
            "propensities": propensities,
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
        self.texts.resize(count)
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


def _reading(descriptions: str, width: int) -> tuple[ClassTexts, nn.Module]:
    """Return what reads descriptions, and what makes vectors of this width of it. Raises SpecificationError."""
    if descriptions == "words":
        words = Words(width, MOST_WORDS)
        nn.init.normal_(words.table.weight, std=USER_SCALE)
        return words, nn.Identity()
    vectors = Vectors(*sentence_embedding("model.head.descriptions", descriptions))
    reads = nn.Linear(vectors.width, width, bias=False)
    nn.init.normal_(reads.weight, std=USER_SCALE)  # of vectors of length 1
    return vectors, reads
