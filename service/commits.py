"""Versions on their way to the store: what an update came to, its row, and the thread that writes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from opentelemetry.context import get_current

from service import metrics, traces
from service.checkpointing import UPDATE, fingerprint
from service.learning.update import LearningState, Step
from service.position import Position
from service.store import CheckpointStore, FeatureStore, Part, Span, Version

log = logging.getLogger(__name__)

NO_PARTS: Mapping[Part, str] = MappingProxyType({})
NO_FEATURES: Mapping[int, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was taken from the log, and what came of it."""

    position: Position
    span: Span = (1, 0)
    reason: str = UPDATE
    act: int | None = None
    steps: Sequence[Step] = ()
    factors: Mapping[int, float] = field(default_factory=dict)
    held: Sequence[int] = ()
    quarantined: Mapping[int, str] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None


def row(state: LearningState, outcome: Outcome, *, version: int, parent: int | None, environment: Mapping[str, Any]) -> Version:
    """Return a version's row, but for its files."""
    return Version(
        version=version,
        parent=parent,
        updates=state.updates,
        created_at=time.time(),
        first_seq=outcome.span[0],
        last_seq=outcome.span[1],
        applied_seq=outcome.position.applied_seq,
        backlog=outcome.position.backlog,
        act=outcome.act,
        steps=[[list(step.new), list(step.rehearsed)] for step in outcome.steps],
        weights=outcome.factors,
        held=tuple(outcome.held),
        quarantined=outcome.quarantined,
        gate=outcome.gate,
        metrics=state.metrics(),
        by_class=state.by_class(),
        environment=dict(environment),
        reason=outcome.reason,
        parts=NO_PARTS,
        sha256="",
    )


class Commits:
    """One commit after the other, in a thread: the next update computes while the last one reaches the disk."""

    def __init__(self, checkpoints: CheckpointStore, features: FeatureStore, frozen: str) -> None:
        self._checkpoints = checkpoints
        self._features = features
        self._frozen = frozen
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._committing: Future[None] | None = None

    def submit(
        self,
        version: Version,
        files: Mapping[Part, bytes],
        *,
        gate: bytes,
        started: float,
        before: Sequence[Version] = (),
        features: Mapping[int, bytes] = NO_FEATURES,
        forgotten: Collection[int] = (),
        waited_since: float | None = None,
    ) -> None:
        """Write a version behind what is under way; `before` are versions without a checkpoint that lead to it.

        `waited_since` is when the oldest of its feedback was received. Raises StoreUnavailable if the commit before it failed.
        """
        self.finish()
        update = get_current()  # the trace goes on in the other thread

        def write() -> None:
            began = time.perf_counter()
            with traces.span("commit", within=update):
                self._features.put(features)
                whole = with_parts(version, {"frozen": self._frozen, **put(self._checkpoints, files)})
                self._checkpoints.commit([*before, whole], gate=gate, forgotten=forgotten, trace=traces.here())
                traces.tell(version=version.version, seq=version.applied_seq, reason=version.reason)
            _report(version, began=began, started=started, waited_since=waited_since)

        self._committing = self._disk.submit(write)

    def finish(self) -> None:
        """Wait for the commit that is under way. Raises StoreUnavailable if it failed."""
        committing, self._committing = self._committing, None
        if committing is not None:
            committing.result()

    def close(self) -> None:
        """Finish and end the thread."""
        self._disk.shutdown()


def _report(version: Version, *, began: float, started: float, waited_since: float | None) -> None:
    """Tell of a version that is durable: its commit `began`, and its update `started`, at these times."""
    now = time.perf_counter()
    items = max(0, version.last_seq - version.first_seq + 1)
    metrics.updates.inc()
    metrics.update_items.inc(items)
    metrics.items_per_update.observe(items)
    metrics.update_seconds.observe(now - started)
    metrics.commit_seconds.observe(now - began)
    if waited_since is not None:  # by the clock, which may have been set
        metrics.learning_delay_seconds.observe(max(0.0, time.time() - waited_since))
    facts = {"version": version.version, "seq": version.applied_seq, "items": items, "seconds": round(now - started, 6)}
    log.info("learner.committed", extra={**facts, "reason": version.reason, "quarantined": len(version.quarantined) or None})


def put(checkpoints: CheckpointStore, files: Mapping[Part, bytes]) -> dict[Part, str]:
    """Bring files to stable storage; return the SHA-256 of each."""
    return {part: checkpoints.put(data) for part, data in files.items()}


def with_parts(version: Version, parts: Mapping[Part, str], *, stored: bool = True) -> Version:
    """Return the row with the files of its checkpoint."""
    return replace(version, parts=parts, sha256=fingerprint(parts), stored=stored)
