"""The engine: one thread that owns the live module, runs batches, and takes new versions between two of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.base import Answer, OnlineModel
from service import metrics
from service.store import Version


class NotReady(Exception):
    """The model can't answer yet: no class is known."""


@dataclass(frozen=True, slots=True)
class Question:
    """The prepared instances of one request; they are answered by one version."""

    prepared: Sequence[Any]
    top_k: int | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What one version says of a question's instances."""

    version: int
    answers: Sequence[Answer]


class Engine:
    """Runs batches of whole questions. Nothing else touches the module: no lock, no torn weights."""

    def __init__(self, model: OnlineModel) -> None:
        self._model = model.eval()
        self._version = -1
        self.device = model.device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def predict(self, questions: Sequence[Question]) -> Future[list[Answers | NotReady]]:
        """Answer all questions with one forward pass of one version."""
        return self._thread.submit(self._predict, questions)

    def swap(self, version: Version, tensors: Mapping[str, Tensor]) -> Future[None]:
        """Take a version's tensors once the batch that is running has ended."""
        return self._thread.submit(self._swap, version.version, tensors)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._thread.shutdown()

    def _predict(self, questions: Sequence[Question]) -> list[Answers | NotReady]:
        if not self._model.head.ready:
            return [NotReady() for _ in questions]
        started = time.perf_counter()
        prepared = [instance for question in questions for instance in question.prepared]
        with torch.inference_mode():
            outputs = self._model(self._model.collate(prepared))
            answers = self._decode(outputs, questions)
        metrics.batch_instances.observe(len(prepared))
        metrics.batch_seconds.observe(time.perf_counter() - started)
        return [Answers(self._version, own) for own in answers]

    def _decode(self, outputs: Tensor, questions: Sequence[Question]) -> list[Sequence[Answer]]:
        """Decode all rows at once for each top_k that is asked for (mostly one), and cut them by question."""
        decoded = {top_k: self._model.head.answers(outputs, top_k) for top_k in {q.top_k for q in questions}}
        cut: list[Sequence[Answer]] = []
        start = 0
        for question in questions:
            end = start + len(question.prepared)
            cut.append(decoded[question.top_k][start:end])
            start = end
        return cut

    def _swap(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        # assign: the module points at the new tensors, and the old snapshot is freed with its last reference.
        self._model.load_state_dict(tensors, assign=True)
        self._version = version
        metrics.swaps.inc()
