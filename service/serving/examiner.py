"""The examiner: one thread of low priority with a model of its own, for questions that take many forward passes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from models.base import OnlineModel
from service.checkpointing import load_part
from service.serving.batcher import Overloaded
from service.store import CheckpointStore, CorruptCheckpoint, StoreUnavailable, Version

T = TypeVar("T")

# On a core that predictions keep busy, this leaves about a tenth of it: 19, the lowest, would leave next to nothing.
NICE = 10


class Withdrawn(Exception):
    """Nobody waits for the answer any longer."""


class Spare:
    """A copy of the model that no prediction comes from; it takes the tensors of any version that is still stored."""

    def __init__(self, build: Callable[[], OnlineModel], checkpoints: CheckpointStore) -> None:
        self._build = build
        self._checkpoints = checkpoints
        self._model: OnlineModel | None = None
        self._version = -1
        self._wanted: Callable[[], bool] = lambda: True

    def begin(self, wanted: Callable[[], bool]) -> None:
        """Begin a job; `wanted` tells whether somebody still waits for it."""
        self._wanted = wanted

    def take(self, version: Version) -> OnlineModel:
        """Return the model with a version's tensors. Raises CorruptCheckpoint where its checkpoint is gone or damaged."""
        if self._model is None:  # made when it is first asked for: most services never are
            self._model = self._build().eval()
        if self._version != version.version:
            tensors = {**load_part(self._checkpoints, version, "frozen"), **load_part(self._checkpoints, version, "model")}
            device = self._model.device
            self._version = -1  # in case the next line fails half-way
            self._model.load_state_dict({name: tensor.to(device) for name, tensor in tensors.items()}, assign=True)
            self._version = version.version
        return self._model

    def take_first(self, versions: Sequence[int]) -> tuple[int, OnlineModel]:
        """Return the first of these versions that is still stored, or else the newest, and the model with its tensors."""
        newest = self._checkpoints.latest()
        for row in (*map(self._checkpoints.get, versions), newest):
            if row is not None and row.stored:
                with suppress(CorruptCheckpoint):  # retired since we asked
                    return row.version, self.take(row)
        raise StoreUnavailable("no checkpoint can be loaded")

    def check(self) -> None:
        """Raise Withdrawn where nobody waits any longer; to be called before each batch."""
        if not self._wanted():
            raise Withdrawn


class Examiner:
    """Runs one job after the other. At most `queue` wait beside the one that runs; more are refused."""

    def __init__(self, build: Callable[[], OnlineModel], checkpoints: CheckpointStore, *, queue: int) -> None:
        self._spare = Spare(build, checkpoints)
        self._places = threading.BoundedSemaphore(queue + 1)
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="examiner", initializer=_be_nice)

    def submit(self, job: Callable[[Spare], T]) -> Future[T]:
        """Queue a job; cancel the future to withdraw it, also while it runs. Raises Overloaded where the queue is full."""
        if not self._places.acquire(blocking=False):
            raise Overloaded("too many explanations and comparisons wait already")
        answer: Future[T] = Future()  # not the executor's, which can't be cancelled once it runs
        self._thread.submit(self._run, job, answer).add_done_callback(lambda done: self._settle(done, answer))
        return answer

    def close(self) -> None:
        """End the thread, at the next batch of what it works on."""
        self._closing = True
        self._thread.shutdown()

    def _run(self, job: Callable[[Spare], T], answer: Future[T]) -> T:
        self._spare.begin(lambda: not (self._closing or answer.cancelled()))
        return job(self._spare)

    def _settle(self, done: Future[T], answer: Future[T]) -> None:
        self._places.release()
        failure = done.exception()
        with suppress(InvalidStateError):  # withdrawn
            if failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(done.result())


def _be_nice() -> None:
    if sys.platform == "linux":  # only there a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
