"""Classification whose classes can grow, by one expert or by several that are mixed online."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveInt, Strict, StringConstraints
from torch import Tensor
from torch.nn import functional as F

from models.base import Answer, Head, Label, Scores
from models.errors import LabelError, SpecificationError
from models.experts.base import Expert
from models.experts.ensemble import EXPERTS, NEIGHBOUR_MEMORY, Experts, Hidden, TrainedExperts, in_order
from models.experts.neighbours import ClassNeighbours
from models.metrics import classification_metrics
from models.mixing import FLOOR, LogisticMix, by_name, let_sleep

PRIOR_ITEMS = 10  # that each class is taken to have had beside its own: one label alone must not weigh as a rare class
KEPT_SCORES = 10  # of an answer, until its label comes

LabelName = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200)]
LabelNumber = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]


class ClassAnswer(BaseModel):
    """The predicted class and the probability of each class, most probable first."""

    label: str
    scores: dict[str, float]


class Classification(Head):
    """Log probabilities of classes; a class that is new starts from zeros, in the order of the log."""

    task = "classification"
    metric = "accuracy"
    higher_is_better = True
    averaged = ("accuracy", "log_loss")
    label_type = LabelName | LabelNumber
    example_label = "cat"
    answer_type = ClassAnswer

    last_seen: Tensor
    observed: Tensor
    shares: Tensor

    share_fading = 0.9995  # per item: the shares are those of about the latest 2,000

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        experts: Experts = list(EXPERTS),  # noqa: B006  # read only
        hidden: Hidden = [128, 128],  # noqa: B006
        labels: Annotated[
            Literal["open", "closed"], Field(description='"open": an undeclared label becomes a new class.')
        ] = "open",
        classes: Annotated[list[LabelName], Field(description="Classes that are known from the start.")] = [],  # noqa: B006
        max_classes: Annotated[PositiveInt, Field(description="A label that would make more is quarantined.")] = 1000,
        balance: Annotated[
            float,
            Field(ge=0, le=1, description="0 answers the likeliest class; 1 as if all classes were equally frequent."),
        ] = 0.0,
    ) -> None:
        super().__init__()
        if labels == "closed" and not classes:
            raise SpecificationError("model.head.classes", 'labels = "closed" needs the classes')
        if len(set(classes)) != len(classes):
            raise SpecificationError("model.head.classes", "a class is named twice")
        self.open = labels == "open"
        self.max_classes = max_classes
        self.balance = balance
        self.classes: dict[str, int] = {}
        self.names = in_order(experts)
        self.experts = TrainedExperts(experts, width, plain or width, hidden, outputs=0)
        self.neighbours = ClassNeighbours(plain or width, 0, capacity=NEIGHBOUR_MEMORY) if "neighbours" in experts else None
        self.mix = LogisticMix(len(self.names))
        self.register_buffer("last_seen", torch.zeros(0, dtype=torch.int64))  # [classes], counted in observed items
        self.register_buffer("observed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("shares", torch.zeros(0, dtype=torch.float64))  # [classes], faded counts of items
        self._name(classes)

    @property
    def ready(self) -> bool:
        """Whether any class is known."""
        return bool(self.classes)

    @property
    def labels(self) -> list[str]:
        """The class names in index order."""
        return list(self.classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return the log probabilities that each expert gives, [batch, experts, classes]."""
        each = torch.stack([expert(features) for expert in self._experts()], 1).log_softmax(2)
        steady = [index for index, expert in enumerate(self._experts()) if expert.memory is None]
        if not steady or len(steady) == each.shape[1]:
            return each
        return let_sleep(each, self._awake(), each[:, steady].logsumexp(1).log_softmax(1))

    def parse_label(self, value: str | int) -> str:
        """Return the class name. Raises LabelError for an undeclared one when the labels are closed."""
        name = str(value)
        if not self.open and name not in self.classes:
            raise LabelError(f"{name!r} is not one of the declared labels: {', '.join(self.classes)}")
        return name

    def admit(self, labels: Sequence[Label]) -> None:
        """Add a class for each label that is new. Raises LabelError when there would be too many."""
        new = [name for name in dict.fromkeys(map(str, labels)) if name not in self.classes]
        if len(self.classes) + len(new) > self.max_classes:
            raise LabelError(f"class {new[-1]!r} would be one more than max_classes = {self.max_classes}")
        if new:
            self._name([*self.classes, *new])

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return class indices, int64 [batch]; -1 for a class that is not known."""
        return torch.tensor([self.classes.get(str(label), -1) for label in labels], device=self.last_seen.device)

    def loss(self, features: Tensor, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        """Return the cross-entropy of each item, added up over the experts that learn from it, [batch]."""
        targets = self.targets(labels)
        return self.experts.loss(features, fresh, lambda outputs: F.cross_entropy(outputs, targets, reduction="none"))

    def scores(self, outputs: Tensor | None, labels: Sequence[Label]) -> Scores:
        """Return accuracy, log loss, and the predicted class with its probability.

        An item of a class that is not known yet is wrong and has no log loss.
        """
        targets = self.targets(labels)
        if outputs is None:
            nothing = torch.full((len(labels),), torch.nan)
            return {"accuracy": torch.zeros(len(labels)), "log_loss": nothing, "predicted": nothing, "confidence": nothing}
        mixed = self._answered(outputs)  # [batch, classes]
        best, predicted = mixed.max(1)
        log_loss = -mixed.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
        return {
            "accuracy": (predicted == targets).float(),
            "log_loss": torch.where(targets >= 0, log_loss, torch.nan),
            "predicted": predicted.float(),
            "confidence": best.exp(),
        }

    def observe(self, features: Tensor, outputs: Tensor | None, labels: Sequence[Label]) -> None:
        """Move the weights of the experts by what they said, and let the experts take the items in."""
        targets = self.targets(labels)
        if outputs is not None:
            known = targets < outputs.shape[2]  # the others were met for the first time: nobody could know them
            self.mix.observe(outputs[known], targets[known])
        if self.neighbours is not None:
            self.neighbours.observe(features, targets)
        self.last_seen[targets] = torch.arange(len(targets), device=targets.device) + self.observed + 1
        self.observed += len(targets)
        ages = torch.arange(len(targets) - 1, -1, -1, device=targets.device, dtype=torch.float64)
        self.shares *= self.share_fading ** len(targets)
        self.shares.index_add_(0, targets, self.share_fading**ages)

    def losses(self, scores: Scores) -> Tensor:
        """Return 1 for each wrong answer, 0 for each right one."""
        return 1 - scores["accuracy"]

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return accuracy, balanced accuracy, kappa-M, macro F1, log loss and ECE over the window."""
        return classification_metrics(columns)

    def answers(self, outputs: Tensor, top_k: int | None) -> list[Answer]:
        """Return label and scores of each item, most probable first, cut to top_k."""
        names = self.labels
        scores, indices = self._answered(outputs).exp().topk(min(top_k or len(names), len(names)))  # [batch, k]
        rows = zip(scores.tolist(), indices.tolist(), strict=True)
        return [
            {"label": names[row[0]], "scores": dict(zip([names[i] for i in row], values, strict=True))} for values, row in rows
        ]

    def kept(self, answer: Answer) -> Answer:
        """Return the scores of the likeliest classes, and how many classes there were."""
        return {"scores": dict(islice(answer["scores"].items(), KEPT_SCORES)), "classes": len(self.classes)}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return all scores; what is left for the classes whose score was not kept is taken to be spread evenly."""
        scores: dict[str, float] = kept["scores"]
        best = next(iter(scores))
        rest = (1 - sum(scores.values())) / max(1, kept["classes"] - len(scores))
        known = str(label) in scores or len(scores) < kept["classes"]
        probability = min(1.0, max(scores.get(str(label), rest), math.exp(FLOOR)))
        return {
            "accuracy": float(best == label),
            "log_loss": -math.log(probability) if known else math.nan,
            "predicted": self.classes.get(best, -1),
            "confidence": scores[best],
        }

    def describe(self) -> dict[str, float]:
        """Return the weight of each expert."""
        return by_name(self.names, self.mix.weights)

    def _answered(self, outputs: Tensor) -> Tensor:
        """Return the log probabilities of the answer, [batch, classes].

        A rare class is favoured by logit adjustment with running priors (Menon et al. 2021), as far as `balance` says.
        """
        mixed: Tensor = self.mix(outputs)
        if not self.balance:
            return mixed
        priors = (self.shares + PRIOR_ITEMS).log()
        priors = priors.where(self.last_seen > 0, priors.max())  # of a class without items nothing is known
        return (mixed - self.balance * priors.to(mixed.dtype)).log_softmax(1)

    def _experts(self) -> list[Expert]:
        return [*self.experts, *([] if self.neighbours is None else [self.neighbours])]

    def _awake(self) -> Tensor:
        """Return which expert may still know which class, bool [experts, classes]."""
        memories = [expert.memory if expert.memory is not None else 2**62 for expert in self._experts()]
        horizon = self.observed - torch.tensor(memories, device=self.last_seen.device).unsqueeze(1)
        return self.last_seen > horizon

    def _name(self, classes: Sequence[str]) -> None:
        """Name the classes, keeping what is known of those that were there."""
        self.classes = {name: index for index, name in enumerate(classes)}
        self._resize(len(classes))

    def _resize(self, classes: int) -> None:
        for expert in self._experts():
            expert.resize(classes)
        kept = self.last_seen[:classes]
        self.last_seen = torch.cat([kept, kept.new_full((classes - len(kept),), -(2**62))])
        self.shares = torch.cat([self.shares[:classes], self.shares.new_zeros(classes - len(kept))])

    # The names travel with the weights, as bytes in a tensor, so that a checkpoint is complete in itself.

    def get_extra_state(self) -> Tensor:
        """Return the class names as UTF-8 JSON, uint8 [bytes]."""
        return torch.frombuffer(bytearray(json.dumps(self.labels).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the class names of a checkpoint."""
        self.classes = {name: index for index, name in enumerate(_names(state))}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shape of the checkpoint before its tensors: it may have more classes, or fewer, than this head."""
        classes = len(state_dict[f"{prefix}last_seen"])
        if classes != len(self.last_seen):
            self._resize(classes)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _names(state: Tensor) -> list[str]:
    names: list[str] = json.loads(bytes(state.cpu().tolist()))
    return names
