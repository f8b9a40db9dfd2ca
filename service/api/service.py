"""What the routes work with: the model that is served and the stores, opened together and closed together."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import torch

from models.base import OnlineModel
from models.errors import InstanceError
from models.inputs import InputKind
from models.registry import build_model, without_weights
from service import tally
from service.access import AuditLog, Verifier
from service.access.pace import Pace
from service.api.newcomers import Newcomers
from service.api.problems import BACKLOG, NOT_READY, RETRY_AFTER, Problem, at
from service.api.timeouts import Timeouts, fits, timeout_label
from service.checkpointing import Shaping, available
from service.position import Position
from service.serving.batcher import Batcher, Overloaded
from service.serving.engine import Engine
from service.serving.examiner import Examiner
from service.serving.follower import Follower
from service.serving.served import Served, Serving
from service.settings import Settings
from service.store import CheckpointStore, FeedbackLog, PredictionJournal, Version

log = logging.getLogger(__name__)

YOUNG = 10_000  # objects after which the collector looks for cycles: one request may bring thousands, and no cycles
GLANCE = 0.05  # seconds for which a look at what other processes have appended holds, when room for more is asked for


class Service:
    """One API process's part of the service."""

    def __init__(
        self,
        settings: Settings,
        shaping: Shaping,
        *,
        feedback: FeedbackLog,
        journal: PredictionJournal,
        checkpoints: CheckpointStore,
        verifier: Verifier | None,
        audit: AuditLog,
        leaving: threading.Event,
        on_ready: Callable[[], None],
    ) -> None:
        """`leaving` is set once it is about to be stopped: all is served until then, but it is not ready any longer."""
        serving = settings.serving
        torch.set_num_threads(serving.threads)
        device = available("serving.device", serving.device)
        self.settings = settings
        self.model: OnlineModel = build_model(without_weights(shaping["model"])).to(device)
        self.feedback = feedback
        self.journal = journal
        self.checkpoints = checkpoints
        self.verifier = verifier
        self.audit = audit
        self.leaving = leaving
        self.newcomers = Newcomers(self.model.head.most_classes)
        self.pace = Pace(settings.limits.feedback_rate, settings.limits.feedback_burst)
        self.served = Served()
        self.started_at = time.time()
        self.engine = Engine(self.model, precision=serving.precision)
        if serving.compile:
            self.engine.compile(serving.batch)
        self.batcher = Batcher(self.engine, batch=serving.batch, queue=serving.queue, deadline=serving.deadline_seconds)
        self.examiner = Examiner(
            lambda: build_model(without_weights(shaping["model"])).to(device),
            checkpoints,
            queue=settings.explanations.queue,
        )
        self.timeouts = self._timeouts()
        self._decoders = ThreadPoolExecutor(serving.decoders, thread_name_prefix="decoder")
        self._decoding = 0
        self._on_ready = on_ready

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the versions while the context lasts, and leave with journal and log written."""
        loop = asyncio.get_running_loop()

        def publish(version: Version) -> None:  # in the follower's thread: only it has versions swapped
            serving = Serving(version, self.model.head.labels, dict(self.model.head.descriptions))
            loop.call_soon_threadsafe(self._publish, serving)

        follower = Follower(self.checkpoints, self.engine, publish)
        counting = asyncio.ensure_future(_count())
        follower.start()
        if self.timeouts is not None:
            self.timeouts.start()
        try:
            yield
        finally:
            counting.cancel()
            self.served.drain()
            await asyncio.to_thread(self._close, follower)
            tally.count()

    def serving(self) -> Serving:
        """Return what is served. Raises Problem 503 before the first version is loaded."""
        if self.served.now is None:
            raise Problem(NOT_READY, "no version is loaded yet", headers=RETRY_AFTER)
        return self.served.now

    async def prepare(self, instances: Sequence[Any], pointers: Sequence[str]) -> list[Any]:
        """Do the per-instance work, off the event loop where it is slow. Raises Problem 422 or Overloaded."""
        kind = self.model.input
        if not kind.slow:
            return [_prepared(kind, *each) for each in zip(instances, pointers, strict=True)]
        if self._decoding and self._decoding + len(instances) > self.settings.serving.queue:
            raise Overloaded("too many pictures wait to be decoded")
        loop = asyncio.get_running_loop()
        self._decoding += len(instances)
        try:
            each = zip(instances, pointers, strict=True)
            waiting = [loop.run_in_executor(self._decoders, _prepared, kind, *instance) for instance in each]
            return await asyncio.gather(*waiting)
        finally:
            self._decoding -= len(instances)

    def check_backlog(self) -> None:
        """Raise Problem 429 where too much waits for the learner."""
        lag = self._lag(within=GLANCE)
        if lag >= self.settings.limits.backlog:
            raise Problem(BACKLOG, f"{lag} items wait for the learner", headers=RETRY_AFTER)

    def _lag(self, within: float = 0.0) -> int:
        serving = self.served.now
        end = self.feedback.end(within)
        return Position.of(serving.version).lag(end) if serving else end

    def _publish(self, serving: Serving) -> None:
        first = self.served.now is None
        self.served.publish(serving)
        if first:
            # What start-up made lives as long as the process: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(YOUNG)
            self._on_ready()

    def _timeouts(self) -> Timeouts | None:
        timeout = self.settings.timeout
        if not timeout.seconds:
            return None
        label = timeout_label(self.model.head, timeout, self.settings.store)
        return Timeouts(
            label,
            timeout.seconds,
            feedback=self.feedback,
            journal=self.journal,
            has_room=lambda: 2 * self._lag() < self.settings.limits.backlog,
            fits=partial(fits, self.model, label),
        )

    def _close(self, follower: Follower) -> None:
        if self.timeouts is not None:
            self.timeouts.stop()
        follower.stop()
        self.engine.close()
        self.examiner.close()
        self._decoders.shutdown()
        self.journal.close()
        self.feedback.close()
        self.checkpoints.close()


async def _count() -> None:
    """Keep the files that the metrics are read from up to date."""
    while True:
        await asyncio.sleep(tally.SECONDS)
        tally.count()


def _prepared(kind: InputKind, instance: Any, pointer: str) -> Any:
    try:
        return kind.prepare(instance)
    except InstanceError as exc:
        raise at(pointer, exc) from exc
