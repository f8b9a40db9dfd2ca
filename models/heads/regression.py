"""Regression of one number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, Field, Strict
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Answer, Head, Label, Scores
from models.errors import LabelError
from models.inputs import FLOAT_LIMIT
from models.statistics import RunningMoments

Z_LIMIT = 10.0


class ValueAnswer(BaseModel):
    """The predicted number."""

    value: float


class Regression(Head):
    """A linear layer that learns the standardised label with Huber's loss (Huber 1964), robust to wild labels."""

    task = "regression"
    metric = "mae"
    higher_is_better = False
    label_type = Annotated[float, Strict(), Field(allow_inf_nan=False)]
    example_label = 3.2
    answer_type = ValueAnswer

    def __init__(self, width: int) -> None:
        super().__init__()
        self.moments = RunningMoments(1)
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return the prediction on the standardised scale, [batch, 1]."""
        outputs: Tensor = self.linear(features)
        return outputs

    def parse_label(self, value: float) -> float:
        """Return the number. Raises LabelError for one that is too large to learn from."""
        if not math.isfinite(value) or abs(value) > FLOAT_LIMIT:
            raise LabelError(f"a label must be within +-{FLOAT_LIMIT:g}, not {value!r}")
        return float(value)

    def admit(self, labels: Sequence[Label]) -> None:
        """Take the labels into the running moments of the label."""
        self.moments.observe(self._column(labels))

    def loss(self, outputs: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return Huber's loss of each item on the standardised scale, [batch]."""
        targets = self.moments.standardise(self._column(labels), Z_LIMIT)
        return F.huber_loss(outputs, targets, reduction="none").squeeze(1)

    def scores(self, outputs: Tensor, labels: Sequence[Label]) -> Scores:
        """Return the absolute and the squared error of each item."""
        errors = self._values(outputs) - self._column(labels).squeeze(1)
        return {"mae": errors.abs(), "mse": errors.square()}

    def answers(self, outputs: Tensor, top_k: int | None) -> list[Answer]:
        """Return the predicted number of each item."""
        return [{"value": value} for value in self._values(outputs).tolist()]

    def _column(self, labels: Sequence[Label]) -> Tensor:
        return torch.tensor([[float(label)] for label in labels], dtype=torch.float64, device=self.moments.mean.device)

    def _values(self, outputs: Tensor) -> Tensor:
        return outputs.squeeze(1).double() * self.moments.std() + self.moments.mean  # [batch]
