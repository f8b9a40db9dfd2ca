"""Classification where several classes may be true of an instance at once, or none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from models.base import Answer, Label, Scores
from models.errors import LabelError
from models.experts.ensemble import Hidden
from models.heads.classification import Classification, LabelName
from models.metrics import means

MOST_LABELS = 1000  # of one instance
PRIOR_ITEMS = 1.0  # with and without each class, that are taken to have been seen beside its own
NEGLIGIBLE = 0.01  # probability below which a class that is not there teaches the mix nothing

Experts = Annotated[
    list[Literal["mlp", "linear", "additive"]],
    Field(min_length=1, description="Who answers, mixed online; see classification."),
]


class LabelsAnswer(BaseModel):
    """The classes that are rather true than not, by name, and the probability of each class, most probable first."""

    labels: list[str]
    scores: dict[str, float]


class MultiLabel(Classification):
    """One yes or no per class, each started from how frequent the class is; classes grow as those of a classification do."""

    task = "multilabel"
    metric = "f1"
    averaged = ("f1", "exact", "log_loss")
    label_type = Annotated[list[LabelName], Field(max_length=MOST_LABELS)]
    example_label = ("cat", "outdoors")
    answer_type = LabelsAnswer
    decides = "labels"

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        experts: Experts = ["mlp", "linear", "additive"],  # noqa: B006  # read only
        hidden: Hidden = [128, 128],  # noqa: B006
        max_classes: Annotated[PositiveInt, Field(description="A label that would make more is quarantined.")] = 1000,
    ) -> None:
        super().__init__(width, plain, experts=list(experts), hidden=hidden, max_classes=max_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return the log odds that each expert gives each class, [batch, experts, classes]."""
        return self.experts.each(features) + self._prior()

    def parse_label(self, value: Any) -> Any:
        """Return the class names in order. Raises LabelError for one that comes twice."""
        for index, name in enumerate(value):
            if name in value[:index]:
                raise LabelError(f"{name!r} is there twice", f"/{index}")
        return sorted(value)

    def classes_of(self, label: Label) -> Sequence[str]:
        """Return the classes that are true."""
        return list(label)

    def admit(self, labels: Sequence[Label]) -> None:
        """Add a class for each name that is new. Raises LabelError when there would be too many."""
        self.grow(chain.from_iterable(labels))

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return how many classes are true of each item, [batch]."""
        return torch.tensor([len(label) for label in labels], dtype=torch.float32, device=self.last_seen.device)

    def strata(self, labels: Sequence[Label]) -> list[int]:
        """Return nothing: an item counts for several classes at once."""
        return []

    def loss(self, features: Tensor, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        """Return the cross-entropy of each item, added up over classes and experts, [batch]."""
        true, prior = self._true(labels), self._prior()

        def loss_of(outputs: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(outputs + prior, true, reduction="none").sum(1)

        return self.experts.loss(features, fresh, loss_of)

    def scores(self, outputs: Tensor | None, labels: Sequence[Label]) -> Scores:
        """Return F1 and exactness of the answered classes, and log loss; a class that is not known yet counts as missed."""
        true = self._true(labels)  # [batch, classes]
        count = self.targets(labels)
        if outputs is None:
            nothing = torch.zeros_like(count)
            return {**_compared(nothing, nothing, count), "log_loss": torch.full_like(count, torch.nan)}
        odds = self._odds(outputs)
        claimed = (odds > 0).float()
        log_loss = F.binary_cross_entropy_with_logits(odds, true, reduction="none").mean(1)
        return {**_compared((claimed * true).sum(1), claimed.sum(1), count), "log_loss": log_loss}

    def observe(self, features: Tensor, outputs: Tensor | None, labels: Sequence[Label], weights: Tensor) -> None:
        """Move the weights of the experts by what they said, and count the classes."""
        true = self._true(labels)
        if outputs is not None:
            self._follow(outputs, true[:, : outputs.shape[2]] > 0, weights)  # nobody could know the others
        self.observed += len(labels)
        ages = torch.arange(len(labels) - 1, -1, -1, device=true.device, dtype=torch.float64)
        self.shares *= self.share_fading ** len(labels)
        self.shares += (self.share_fading**ages) @ true.double()
        self.last_seen[true.any(0)] = self.observed
        self._wake()

    def losses(self, scores: Scores) -> Tensor:
        """Return 1 - F1 of each item."""
        return 1 - scores["f1"]

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return mean F1, exactness and log loss, and F1 over all classes of all items together."""
        hits, claimed, true = (columns[name].double().sum().item() for name in ("hits", "claimed", "target"))
        micro = 2 * hits / (claimed + true) if claimed + true else 1.0
        return {**means(columns, self.averaged), "micro_f1": micro}

    def answers(self, outputs: Tensor, top_k: int | None) -> list[Answer]:
        """Return labels and scores of each item, the scores most probable first and cut to top_k."""
        names = self.labels
        probabilities, order = self._odds(outputs).sigmoid().sort(dim=1, descending=True, stable=True)
        answers = []
        for row, places in zip(probabilities.tolist(), order.tolist(), strict=True):
            ranked = [(names[place], value) for place, value in zip(places, row, strict=True)]
            answers.append({"labels": sorted(name for name, value in ranked if value > 0.5), "scores": dict(ranked[:top_k])})
        return answers

    def as_tensors(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return the probability that each class is true, [batch, classes], in the order of the labels."""
        return {"scores": self._odds(outputs).sigmoid()}

    def explained(self, outputs: Tensor, label: Label | None) -> Tensor:
        """Return the log odds of a class, float64 [batch]."""
        names = [label] if isinstance(label, str) else label or []
        if len(names) != 1 or names[0] not in self.classes:
            raise LabelError("name the one known label to explain")
        return self._odds(outputs)[:, self.classes[names[0]]].double()

    def foremost(self, answer: Answer) -> Label | None:
        """Return the most probable class."""
        return next(iter(answer["scores"]))

    def kept(self, answer: Answer) -> Answer:
        """Return the labels."""
        return {"labels": answer["labels"]}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return F1 and exactness."""
        sizes = (len({*kept["labels"]} & {*label}), len(kept["labels"]), len(label))
        return {name: value.item() for name, value in _compared(*map(torch.tensor, sizes)).items()}

    def _true(self, labels: Sequence[Label]) -> Tensor:
        """Return which known classes are true of each item, float [batch, classes]."""
        places = [(row, self.classes[name]) for row, label in enumerate(labels) for name in label if name in self.classes]
        true = torch.zeros(len(labels), len(self.classes), device=self.last_seen.device)
        if places:
            true[tuple(torch.tensor(places, device=true.device).T)] = 1
        return true

    def _prior(self) -> Tensor:
        """Return the log odds of each class before anything is known of an instance, [classes]."""
        items = (1 - self.share_fading ** self.observed.double()) / (1 - self.share_fading)  # faded as the shares are
        there = self.shares + PRIOR_ITEMS
        return (there / (items - self.shares + PRIOR_ITEMS)).log().float()

    def _odds(self, outputs: Tensor) -> Tensor:
        """Return the mixed log odds of each class, [batch, classes]."""
        return self.mix.applied.to(outputs.dtype) @ outputs

    def _follow(self, outputs: Tensor, true: Tensor, weights: Tensor) -> None:
        """Let the mix follow each class that is there, or was thought to be: a yes or no is a class of two."""
        telling = true | (self._odds(outputs).sigmoid() > NEGLIGIBLE)  # [batch, classes]
        logits = outputs.transpose(1, 2)[telling]  # [telling, experts]
        said = torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], 2)
        self.mix.observe(said, (~true[telling]).long(), weights.unsqueeze(1).expand_as(true)[telling])


def _compared(hits: Tensor, claimed: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Return F1 and exactness of sets by their sizes; two empty ones are the same."""
    total = claimed + true
    return {
        "f1": torch.where(total > 0, 2 * hits / total.clamp(min=1), 1.0),
        "exact": ((hits == claimed) & (hits == true)).float(),
        "hits": hits.float(),
        "claimed": claimed.float(),
    }
