"""Regression of one number, by one expert or by several that are mixed online."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, Field, Strict
from torch import Tensor
from torch.nn import functional as F

from models.base import Answer, Head, Label, Scores
from models.errors import LabelError
from models.experts.ensemble import DEFAULT_EXPERTS, NEIGHBOUR_MEMORY, Ensemble, Hidden, ValueExperts, gradient_experts
from models.experts.neighbours import ValueNeighbours
from models.inputs import FLOAT_LIMIT
from models.intervals import ConformalInterval
from models.metrics import means, regression_metrics
from models.mixing import ErrorMix, by_name
from models.statistics import RunningMoments

Z_LIMIT = 10.0


class ValueAnswer(BaseModel):
    """The predicted number, and the interval that holds the true one as often as `coverage` promises."""

    value: float
    low: Annotated[float | None, Field(description="Null before the first label.")]
    high: float | None


class Regression(Head):
    """Experts that learn the standardised label with Huber's loss (Huber 1964), robust to wild labels."""

    task = "regression"
    metric = "mae"
    higher_is_better = False
    averaged = ("mae", "mse", "coverage")
    label_type = Annotated[float, Strict(), Field(allow_inf_nan=False)]
    example_label = 3.2
    answer_type = ValueAnswer
    explains = "value"

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        experts: ValueExperts = list(DEFAULT_EXPERTS),  # noqa: B006  # read only
        hidden: Hidden = [128, 128],  # noqa: B006
        coverage: Annotated[
            float, Field(gt=0, lt=1, description="Share of the true numbers that is to be inside the interval of an answer.")
        ] = 0.9,
    ) -> None:
        super().__init__()
        self.interval = ConformalInterval(coverage)
        self.moments = RunningMoments(1)
        self.experts = Ensemble(dict(gradient_experts(experts, width, plain or width, hidden, outputs=1)))
        self.neighbours = ValueNeighbours(plain or width, capacity=NEIGHBOUR_MEMORY) if "neighbours" in experts else None
        self.mix = ErrorMix(len(self.experts) + (self.neighbours is not None))

    def forward(self, features: Tensor) -> Tensor:
        """Return what each expert says on the label's scale, float64 [batch, experts]."""
        standard = [expert(features) for expert in self.experts]
        values = (
            torch.cat([features.new_zeros(features.shape[0], 0), *standard], 1).double() * self.moments.std + self.moments.mean
        )
        if self.neighbours is None:
            return values
        near = self.neighbours(features).nan_to_num(self.moments.mean.item())
        return torch.cat([values, near.unsqueeze(1)], 1)

    def parse_label(self, value: float) -> float:
        """Return the number. Raises LabelError for one that is too large to learn from."""
        if not math.isfinite(value) or abs(value) > FLOAT_LIMIT:
            raise LabelError(f"a label must be within +-{FLOAT_LIMIT:g}, not {value!r}")
        return float(value)

    def admit(self, labels: Sequence[Label]) -> None:
        """Take the labels into the running moments of the label."""
        self.moments.observe(self.targets(labels).unsqueeze(1))

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return the numbers, float64 [batch]."""
        return torch.tensor([float(label) for label in labels], dtype=torch.float64, device=self.moments.mean.device)

    def loss(self, features: Tensor, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        """Return Huber's loss of each item on the standardised scale, added up over the experts, [batch]."""
        targets = self.moments.standardise(self.targets(labels).unsqueeze(1), Z_LIMIT)
        return self.experts.loss(features, fresh, lambda outputs: F.huber_loss(outputs, targets, reduction="none").squeeze(1))

    def scores(self, outputs: Tensor | None, labels: Sequence[Label]) -> Scores:
        """Return the absolute and the squared error of each item, whether it was inside the interval, and how wide that was."""
        assert outputs is not None, "a regression can always answer"
        errors = (self.mix(outputs) - self.targets(labels)).abs()
        half = self.interval().expand_as(errors)
        inside = torch.where(half.isnan(), torch.nan, (errors <= half).double())
        return {"mae": errors, "mse": errors.square(), "coverage": inside, "width": 2 * half}

    def observe(self, features: Tensor, outputs: Tensor | None, labels: Sequence[Label], weights: Tensor) -> None:
        """Move interval and weights of the experts by the errors, and let the neighbours take the items in."""
        targets = self.targets(labels)
        if outputs is not None:
            self.interval.observe((self.mix(outputs) - targets).abs())
            self.mix.observe((outputs - targets.unsqueeze(1)).abs() / self.moments.std, weights)
        if self.neighbours is not None:
            self.neighbours.observe(features, targets, weights)

    def losses(self, scores: Scores) -> Tensor:
        """Return the absolute errors in units of the label's standard deviation."""
        return scores["mae"] / self.moments.std

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return MAE, RMSE, R2, and the coverage and mean width of the intervals over the window."""
        return {**regression_metrics(columns), **means(columns, ("coverage", "width"))}

    def answers(self, outputs: Tensor, top_k: int | None) -> list[Answer]:
        """Return the predicted number of each item with its interval."""
        half = self.interval().item()
        values: list[float] = self.mix(outputs).tolist()
        if math.isnan(half):
            return [{"value": value, "low": None, "high": None} for value in values]
        return [{"value": value, "low": value - half, "high": value + half} for value in values]

    def as_tensors(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return the predicted number and its interval, each float64 [batch]; NaN for the interval before the first label."""
        value, half = self.mix(outputs), self.interval()
        return {"value": value, "low": value - half, "high": value + half}

    def explained(self, outputs: Tensor, label: Label | None) -> Tensor:
        """Return the predicted number of each item, float64 [batch]."""
        if label is not None:
            raise LabelError("a regression has one number to explain: leave the label out")
        mixed: Tensor = self.mix(outputs)
        return mixed

    def kept(self, answer: Answer) -> Answer:
        """Return the number and its interval."""
        return answer

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return the scores."""
        value, low, high = float(label), kept["low"], kept["high"]
        error = abs(kept["value"] - value)
        known = low is not None
        inside = float(low <= value <= high) if known else math.nan
        return {"mae": error, "mse": error**2, "coverage": inside, "width": high - low if known else math.nan}

    def describe(self) -> dict[str, float]:
        """Return the weight of each expert."""
        return by_name([*self.experts.names, *([] if self.neighbours is None else ["neighbours"])], self.mix.weights)
