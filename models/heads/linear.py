"""Linear classification whose classes can grow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveInt, Strict, StringConstraints
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Answer, Head, Label, Scores
from models.errors import LabelError, SpecificationError

LabelName = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200)]
LabelNumber = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]


class ClassAnswer(BaseModel):
    """The predicted class and the probability of each class, most probable first."""

    label: str
    scores: dict[str, float]


class LinearClassifier(Head):
    """Softmax over a linear layer; a class that is new gets a row of zeros, in the order of the log."""

    task = "classification"
    metric = "accuracy"
    higher_is_better = True
    label_type = LabelName | LabelNumber
    example_label = "cat"
    answer_type = ClassAnswer

    def __init__(
        self,
        width: int,
        *,
        labels: Annotated[
            Literal["open", "closed"], Field(description='"open": an undeclared label becomes a new class.')
        ] = "open",
        classes: Annotated[list[LabelName], Field(description="Classes that are known from the start.")] = [],  # noqa: B006  # read only
        max_classes: Annotated[PositiveInt, Field(description="A label that would make more is quarantined.")] = 1000,
    ) -> None:
        super().__init__()
        if labels == "closed" and not classes:
            raise SpecificationError("model.head.classes", 'labels = "closed" needs the classes')
        if len(set(classes)) != len(classes):
            raise SpecificationError("model.head.classes", "a class is named twice")
        self.open = labels == "open"
        self.max_classes = max_classes
        self.classes: dict[str, int] = {}
        self.weight = nn.Parameter(torch.zeros(0, width))
        self.bias = nn.Parameter(torch.zeros(0))
        self._grow(classes)

    @property
    def ready(self) -> bool:
        """Whether any class is known."""
        return bool(self.classes)

    @property
    def labels(self) -> list[str]:
        """The class names in index order."""
        return list(self.classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [batch, classes]."""
        return F.linear(features, self.weight, self.bias)

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
            self._grow([*self.classes, *new])

    def loss(self, outputs: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the cross-entropy of each item, [batch]."""
        return F.cross_entropy(outputs, self._indices(labels, outputs.device), reduction="none")

    def scores(self, outputs: Tensor, labels: Sequence[Label]) -> Scores:
        """Return accuracy and log loss; an item of a class not known yet is wrong, and has no log loss."""
        indices = self._indices(labels, outputs.device)
        known = indices >= 0
        if not self.ready:
            nothing = torch.full((len(labels),), torch.nan)
            return {"accuracy": torch.zeros(len(labels)), "log_loss": nothing}
        log_loss = F.cross_entropy(outputs, indices.clamp(min=0), reduction="none")
        return {
            "accuracy": (outputs.argmax(1) == indices).float(),
            "log_loss": torch.where(known, log_loss, torch.nan),
        }

    def answers(self, outputs: Tensor, top_k: int | None) -> list[Answer]:
        """Return label and scores of each item, most probable first, cut to top_k."""
        names = self.labels
        scores, indices = outputs.softmax(1).topk(min(top_k or len(names), len(names)))  # [batch, k]
        rows = zip(scores.tolist(), indices.tolist(), strict=True)
        return [
            {"label": names[row[0]], "scores": dict(zip([names[i] for i in row], values, strict=True))} for values, row in rows
        ]

    def _indices(self, labels: Sequence[Label], device: torch.device) -> Tensor:
        return torch.tensor([self.classes.get(str(label), -1) for label in labels], device=device)

    def _grow(self, classes: Sequence[str]) -> None:
        """Name the classes, keeping the rows of those that were there."""
        added = len(classes) - len(self.classes)
        self.classes = {name: index for index, name in enumerate(classes)}
        self.weight = nn.Parameter(torch.cat([self.weight.data, self.weight.new_zeros(added, self.weight.shape[1])]))
        self.bias = nn.Parameter(torch.cat([self.bias.data, self.bias.new_zeros(added)]))

    # The names travel with the weights, as bytes in a tensor, so that a checkpoint is complete in itself.

    def get_extra_state(self) -> Tensor:
        """Return the class names as UTF-8 JSON, uint8 [bytes]."""
        return torch.frombuffer(bytearray(json.dumps(self.labels).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the class names of a checkpoint."""
        self.classes = {name: index for index, name in enumerate(_names(state))}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shape of the checkpoint before its tensors: it may have more classes, or fewer, than this head."""
        missing = len(state_dict[f"{prefix}bias"]) - len(self.bias)
        if missing:
            width = self.weight.shape[1]
            self.weight = nn.Parameter(self.weight.new_zeros(len(self.bias) + missing, width), self.weight.requires_grad)
            self.bias = nn.Parameter(self.bias.new_zeros(len(self.bias) + missing), self.bias.requires_grad)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _names(state: Tensor) -> list[str]:
    names: list[str] = json.loads(bytes(state.cpu().tolist()))
    return names
