"""Recognition: who or what is this, or is it nobody that is known?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from models.base import Answer, Label, Scores
from models.experts.prototype import SHARPNESS
from models.heads.classification import Classification
from models.intervals import ConformalInterval
from models.metrics import means

LISTED = 10  # identities in an answer, unless it is asked for others


class RecognitionAnswer(BaseModel):
    """The identity, null where it is nobody that is known, and the probabilities of the most similar ones."""

    label: str | None
    scores: dict[str, float]
    similarity: Annotated[float, Field(description="The cosine between the instance and the most similar identity's mean.")]


class Recognition(Classification):
    """Identities by their mean features (nearest class mean): one instance makes one, and thousands cost one product.

    An instance is nobody's when it is less similar to every identity than instances of known ones are, but for the share
    `unknown` of them. That threshold is followed online, on instances that were judged before they were learned from.
    """

    task = "recognition"
    answer_type = RecognitionAnswer

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        unknown: Annotated[
            float, Field(gt=0, lt=1, description="Share of instances of known identities that may be answered as unknown.")
        ] = 0.05,
        max_classes: Annotated[
            PositiveInt, Field(description="A label that would make more identities is quarantined.")
        ] = 10_000,
    ) -> None:
        super().__init__(width, plain, experts=["prototype"], max_classes=max_classes)
        self.threshold = ConformalInterval(1 - unknown)

    def forward(self, features: Tensor) -> Tensor:
        """Return the scaled cosine with each identity, [batch, 1, identities]: as good as its log probability to the mix."""
        return self.experts.each(features)

    def strata(self, labels: Sequence[Label]) -> list[int]:
        """Return nothing: nothing is rehearsed, and thousands of identities have too few items each to be told apart."""
        return []

    def scores(self, outputs: Tensor | None, labels: Sequence[Label]) -> Scores:
        """Return the scores of a classification; whoever is not known yet is answered right by null."""
        scores = super().scores(outputs, labels)
        new = self.targets(labels) < 0
        accepted = torch.zeros_like(new) if outputs is None else self._accepted(outputs)
        right = torch.where(new, ~accepted, accepted & (scores["accuracy"] > 0)).float()
        nothing = torch.tensor(torch.nan)
        return {
            **scores,
            "accuracy": right,
            "known_accuracy": torch.where(new, nothing, right),
            "unknown_accuracy": torch.where(new, right, nothing),
        }

    def observe(self, features: Tensor, outputs: Tensor | None, labels: Sequence[Label], weights: Tensor) -> None:
        """Follow the threshold, then take the items in."""
        if outputs is not None:
            known = self.targets(labels) < outputs.shape[2]  # the others have just been admitted
            self.threshold.observe(1 - _similarity(outputs[known]).double())
        super().observe(features, outputs, labels, weights)

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return the metrics of a classification, and accuracy on those who were known and on those who were not."""
        return {**super().summarise(columns), **means(columns, ("known_accuracy", "unknown_accuracy"))}

    def answers(self, outputs: Tensor, top_k: int | None) -> list[Answer]:
        """Return identity, scores of the most similar ones, and similarity of each item."""
        answers = super().answers(outputs, top_k or LISTED)
        similarities = _similarity(outputs).tolist()
        for answer, similarity, accepted in zip(answers, similarities, self._accepted(outputs).tolist(), strict=True):
            answer["similarity"] = similarity
            if not accepted:
                answer["label"] = None
        return answers

    def as_tensors(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return scores, similarity, and whether it is anybody who is known, bool [batch]."""
        accepted = self._accepted(outputs)
        return {**super().as_tensors(outputs), "similarity": _similarity(outputs), "known": accepted}

    def foremost(self, answer: Answer) -> Label | None:
        """Return the most similar identity, for a stranger too."""
        return next(iter(answer["scores"]))

    def kept(self, answer: Answer) -> Answer:
        """Return nothing: who was unknown then can't be told from the answer alone."""
        return {}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return nothing."""
        return {}

    def describe(self) -> dict[str, float]:
        """Return the similarity below which somebody is unknown."""
        distance = self.threshold().item()
        return {} if math.isnan(distance) else {"threshold": 1 - distance}

    def _accepted(self, outputs: Tensor) -> Tensor:
        """Return which items are similar enough to somebody, bool [batch]; all before the threshold is known."""
        distance = 1 - _similarity(outputs)
        accepted: Tensor = ~(distance > self.threshold())
        return accepted


def _similarity(outputs: Tensor) -> Tensor:
    """Return the cosine with the most similar identity, [batch]."""
    best: Tensor = outputs.amax((1, 2)) / SHARPNESS
    return best
