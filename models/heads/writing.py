"""What heads have in common whose labels and answers are texts: limits, metrics, and how an answer is judged."""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, Strict
from torch import Tensor

from models.base import Answer, Features, Head, Label, Outputs, Scores
from models.errors import LabelError, SpecificationError
from models.metrics import means

MOST_ALTERNATIVES = 10


class Alternative(BaseModel):
    """A text that was considered, and the mean log probability of its tokens."""

    text: str
    score: float


class TextAnswer(BaseModel):
    """The text that is written, the mean log probability of its tokens, and, where more are asked for, the next best ones."""

    text: str
    score: float
    alternatives: Annotated[list[Alternative] | None, Field(description="With top_k > 1, all of them, best first.")] = None


class Writing(Head):
    """A head that writes texts, trained on the label's own tokens (teacher forcing, Williams and Zipser 1989)."""

    task = "generation"
    metric = "exact"
    higher_is_better = True
    averaged = ("exact", "chrf", "log_loss")
    label_type = Annotated[str, Strict()]
    example_label = "2024-03-01"
    answer_type = TextAnswer
    decides = "text"

    beams: int
    """How many texts are followed for one answer."""

    def __init__(self) -> None:
        super().__init__()
        self._chrf = _chrf()

    @abstractmethod
    def log_losses(self, outputs: Outputs, labels: Sequence[Label]) -> Tensor:
        """Return the mean log loss of each label's tokens, [batch]."""

    @abstractmethod
    def search(self, outputs: Outputs, beams: int) -> list[list[Answer]]:
        """Write for each item: at most so many different texts with their scores, best first."""

    def parse_label(self, value: str) -> str:
        """Return the text. Raises LabelError for one that has half a character."""
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise LabelError(f"the text has half a character at {exc.start}") from exc
        return value

    def admit(self, labels: Sequence[Label]) -> None:
        """Nothing to make room for: the tokens are all there is."""

    def loss(self, features: Features, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        """Return the mean cross-entropy of each label's tokens and its end, [batch]."""
        return self.log_losses(self(features), labels)

    def scores(self, outputs: Outputs | None, labels: Sequence[Label]) -> Scores:
        """Return whether each text is the label, its chrF (Popovic 2015) as 0..1, and the mean log loss of a token."""
        assert outputs is not None, "a writer can always answer"
        written = [answer["text"] for answer in self.answers(outputs, 1)]
        log_loss = self.log_losses(outputs, labels)
        pairs = list(zip(written, labels, strict=True))
        return {
            "exact": log_loss.new_tensor([float(text == label) for text, label in pairs]),
            "chrf": log_loss.new_tensor([self._similarity(text, label) for text, label in pairs]),
            "log_loss": log_loss,
        }

    def losses(self, scores: Scores) -> Tensor:
        """Return how far each text is from its label by chrF."""
        return 1 - scores["chrf"]

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return the means of the scores."""
        return means(columns, self.averaged)

    def answers(self, outputs: Outputs, top_k: int | None) -> list[Answer]:
        """Write a text for each item; with top_k > 1 also the next best ones, at most 10."""
        wanted = min(top_k or 1, MOST_ALTERNATIVES)
        found = self.search(outputs, max(self.beams, wanted))
        if wanted == 1:
            return [ranked[0] for ranked in found]
        return [{**ranked[0], "alternatives": ranked[:wanted]} for ranked in found]

    def kept(self, answer: Answer) -> Answer:
        """Return the text."""
        return {"text": answer["text"]}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return whether the text is the label, and its chrF."""
        return {"exact": float(kept["text"] == label), "chrf": self._similarity(kept["text"], label)}

    def _similarity(self, text: str, label: str) -> float:
        if not text or not label:
            return float(text == label)
        return float(self._chrf.sentence_score(text, [label]).score) / 100


def masked_means(losses: Tensor, there: Tensor) -> Tensor:
    """Return the mean of each row [batch, length] over the places that are there."""
    return torch.where(there, losses, 0).sum(1) / there.sum(1)


def ranked(found: Iterable[tuple[str, float]]) -> list[Answer]:
    """Return different texts with their finite scores as answers, best first."""
    best: dict[str, float] = {}
    for text, score in found:
        if math.isfinite(score):
            best.setdefault(text, score)
    return [{"text": text, "score": score} for text, score in sorted(best.items(), key=lambda item: -item[1])]


def _chrf() -> Any:
    """Return what computes chrF. Raises SpecificationError without sacrebleu."""
    try:
        metrics = importlib.import_module("sacrebleu.metrics")
    except ImportError as exc:
        raise SpecificationError("model.head.name", "it needs sacrebleu: pip install 'everlearn[text]'") from exc
    return metrics.CHRF()
