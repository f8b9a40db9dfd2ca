"""Recommendation: whether a user will click on an item, or what they will think of it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, Strict, StrictBool
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import TypedDict

from models.base import Label, Scores
from models.errors import LabelError
from models.heads.ranking import NO_ITEM, PRIOR_ITEMS, Asked, Ranking
from models.inputs import Number
from models.interactions import Name
from models.metrics import auc, means, regression_metrics

LEAST_PROBABILITY = 1e-7  # that a float can be short of 1


class ClickLabel(TypedDict):
    """Whether an item of those that were shown was clicked."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # it is pydantic's, and no field

    item: Name
    value: StrictBool


class RatingLabel(TypedDict):
    """What an item of those that were shown is worth to the user."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # it is pydantic's, and no field

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
        """Raise LabelError for a value of nothing, where neither label nor instance names the item, or of one not asked for."""
        name, asked = self.named(label), instance()
        candidates = [asked["item"]] if "item" in asked else asked.get("candidates")
        if name is None and "item" not in asked:
            raise LabelError(NO_ITEM)
        if name is not None and candidates and name not in candidates:
            raise LabelError(f"{name!r} is not what was asked for", "/item")

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return the values, [batch]."""
        return torch.tensor([float(label["value"] if isinstance(label, Mapping) else label) for label in labels])

    def reward(self, item: str, label: Label) -> float:
        """Return the value of the item, NaN where the label is about another."""
        if isinstance(label, Mapping) and label["item"] != item:
            return math.nan
        return float(self.targets([label]))

    def worth(self, items: Sequence[str], scores: Sequence[float], label: Label) -> dict[str, float]:
        """Return the scores of what was answered of the item that the label is about, if it was among the first ten."""
        item = self.named(label) or items[0]
        return self.worth_of(scores[items.index(item)], float(self.targets([label]))) if item in items else {}

    @abstractmethod
    def worth_of(self, score: float, target: float) -> dict[str, float]:
        """Return the task's scores of an item that was answered with a score."""

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

    def worth_of(self, score: float, target: float) -> dict[str, float]:
        """Return log loss, accuracy and the probability of a click."""
        right = score if target > 0 else 1 - score
        log_loss = -math.log(max(right, LEAST_PROBABILITY))
        return {"log_loss": log_loss, "accuracy": float((score > 0.5) == (target > 0)), "probability": score}

    def losses(self, scores: Scores) -> Tensor:
        """Return how far each probability is from what happened: 0 to 1, and no more for a surprise than it is."""
        return 1 - (-scores["log_loss"]).exp()

    def summary(self, columns: Scores) -> dict[str, float]:
        """Return log loss, accuracy and AUC."""
        return {**means(columns, self.averaged), "auc": auc(columns["probability"], columns["target"])}

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

    def worth_of(self, score: float, target: float) -> dict[str, float]:
        """Return absolute and squared errors."""
        return {"mae": abs(score - target), "mse": (score - target) ** 2}

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
