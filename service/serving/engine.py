"""The engine: it owns the live module, runs batches, and takes new versions between two of them."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from models.base import Answer, OnlineModel
from service import metrics
from service.serving.compiling import compile_encoder
from service.serving.lookup import put_at_hand
from service.store import Version

T = TypeVar("T")
Precision = Literal["float32", "bfloat16"]


class NotReady(Exception):
    """The model can't answer yet: no class is known."""


class Question(NamedTuple):
    """The prepared instances of one request; they are answered by one version."""

    prepared: Sequence[Any]
    top_k: int | None = None


class Answers(NamedTuple):
    """What one version says of a question's instances."""

    version: int
    answers: Sequence[Answer]


QUICK_SECONDS = 1e-3  # that a batch may keep the event loop: less than what handing it to a thread costs under load


class Durations:
    """How long batches of about a size, within a factor of two, took lately."""

    def __init__(self) -> None:
        self._lately: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=8))

    def observe(self, instances: int, seconds: float) -> None:
        """Take note of a batch."""
        self._lately[instances.bit_length()].append(seconds)

    def quick(self, instances: int) -> bool:
        """Return whether such a batch is quick; the shortest time counts, since others ran beside the longer ones."""
        lately = self._lately.get(instances.bit_length())
        return lately is not None and min(lately) < QUICK_SECONDS


class Engine:
    """Runs batches of whole questions, each by one forward pass of one version. Nothing else touches the module: no torn
    weights."""

    def __init__(self, model: OnlineModel, *, precision: Precision = "float32") -> None:
        """`precision` is that of forward passes, as autocast has it; answers are worked out in what comes of them."""
        self._model = model.eval()
        self._version = -1
        self.device = model.device
        self._cast = torch.autocast(self.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
        self._durations = Durations()
        self._module = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def compile(self, largest: int) -> None:
        """Have the encoder compiled for batches of up to `largest` instances, before anything is asked.

        Raises SpecificationError where that can't be.
        """
        compile_encoder(self._model, self._cast, largest)

    def answer(self, questions: Sequence[Question]) -> list[Answers | NotReady] | None:
        """Answer all questions here and now; None where that would take too long, or the module is in use."""
        instances = sum(len(question.prepared) for question in questions)
        if not self._durations.quick(instances) or not self._module.acquire(blocking=False):
            return None
        try:
            return self._predict(questions)
        finally:
            self._module.release()

    def submit(self, questions: Sequence[Question]) -> Future[list[Answers | NotReady]]:
        """Answer all questions in the engine's thread."""
        return self._thread.submit(self._owning, self._predict, questions)

    def swap(self, version: Version, tensors: Mapping[str, Tensor]) -> Future[None]:
        """Take a version's tensors once the batch that is running has ended."""
        return self._thread.submit(self._owning, self._swap, version.version, tensors)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._thread.shutdown()

    def _owning(self, work: Callable[..., T], *arguments: Any) -> T:
        with self._module:
            return work(*arguments)

    def _predict(self, questions: Sequence[Question]) -> list[Answers | NotReady]:
        if not self._model.head.ready:
            return [NotReady() for _ in questions]
        started = time.perf_counter()
        prepared = [instance for question in questions for instance in question.prepared]
        with torch.inference_mode():
            batch = self._model.collate(prepared)
            with self._cast:
                outputs = self._model(batch)
            answers = self._decode(outputs, questions)
        seconds = time.perf_counter() - started
        self._durations.observe(len(prepared), seconds)
        metrics.batch_instances.observe(len(prepared))
        metrics.batch_seconds.observe(seconds)
        for _ in questions:  # each of them waited for the whole batch
            metrics.compute_seconds.observe(seconds)
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
        put_at_hand(self._model)
        self._version = version
        metrics.swaps.inc()
        metrics.serving(version)
