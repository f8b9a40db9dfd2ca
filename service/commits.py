"""Versions on their way to the store: what an update came to, its row, and the thread that writes it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from opentelemetry.context import Context, get_current

from service import metrics, traces
from service.checkpointing import fingerprint, hashes_of
from service.learning.update import LearningState, Step
from service.position import Position
from service.reasons import UPDATE
from service.store import CheckpointStore, FeatureStore, Part, Span, Version

log = logging.getLogger(__name__)

NO_PARTS: Mapping[Part, str] = MappingProxyType({})
NO_FEATURES: Mapping[int, bytes] = MappingProxyType({})

MOST_WAITING = 32  # versions that a crash costs at most; they are learned again
MILESTONE = 32  # each such version has a checkpoint whatever waits: those of old versions are thinned out to multiples of it
MOST_WAITING_BYTES = 256 * 1024 * 1024  # of their files, but for the one that was made last


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A version that is made, and what goes to the store with it."""

    version: Version
    files: Mapping[Part, bytes]
    gate: bytes
    """What the gate knew then."""
    started: float
    """When its update began."""
    before: Sequence[Version] = ()
    """Versions without a checkpoint that lead to it."""
    features: Mapping[int, bytes] = field(default_factory=dict)
    forgotten: Collection[int] = ()
    waited_since: float | None = None
    """When the oldest of its feedback was received."""
    update: Context = field(default_factory=get_current)
    """The trace, which goes on in the other thread."""

    @property
    def size(self) -> int:
        """How many bytes wait with it."""
        return sum(map(len, self.files.values()))


class Commits:
    """Commits in order, in a thread: the next updates compute while the last one reaches the disk.

    What waits for the disk by then goes there as one, or it would be the disk that sets the pace. Then only the last of these
    versions is ever served, and the others have no checkpoint, but for milestones; each is what it would be alone, and replay
    makes it again.
    """

    def __init__(self, checkpoints: CheckpointStore, features: FeatureStore, frozen: str) -> None:
        self._checkpoints = checkpoints
        self._features = features
        self._frozen = frozen
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._waiting: deque[Commit] = deque()
        self._pending: deque[tuple[Future[None], int]] = deque()  # one for each version that may not be durable, with its size
        self._failure: BaseException | None = None

    def submit(self, commit: Commit) -> None:
        """Write a version behind what is under way. Raises StoreUnavailable if a commit before it failed."""
        while self._pending and (self._pending[0][0].done() or self._is_full(commit)):
            self._pending.popleft()[0].result()
        if self._failure is not None:
            self.finish()
        self._waiting.append(commit)
        self._pending.append((self._disk.submit(self._write), commit.size))

    def finish(self) -> None:
        """Wait for the commits that are under way. Raises StoreUnavailable if one failed; those after it were dropped."""
        while self._pending:
            self._pending.popleft()[0].result()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Finish and end the thread."""
        self._disk.shutdown()

    def _is_full(self, commit: Commit) -> bool:
        """Return whether a commit has to wait for room."""
        return len(self._pending) >= MOST_WAITING or sum(size for _, size in self._pending) + commit.size > MOST_WAITING_BYTES

    def _write(self) -> None:
        """Write all that waits, maybe nothing: then the write before took it along."""
        group = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not group or self._failure is not None:  # what comes after a version that is lost is lost with it
            return
        try:
            self._write_as_one(group)
        except BaseException as exc:  # noqa: BLE001  # who waits for it raises it
            self._failure = exc

    def _write_as_one(self, group: Sequence[Commit]) -> None:
        began = time.perf_counter()
        with ExitStack() as spans:
            traced = {commit.version.version: _traced(commit, spans) for commit in group}
            self._features.put({seq: each for commit in group for seq, each in commit.features.items()})
            last = group[-1]
            made = [(commit, self._whole(commit, stored=commit is last or _is_milestone(commit))) for commit in group]
            self._checkpoints.commit(
                [row for commit, version in made for row in (*commit.before, version)],
                gate=last.gate,
                contents={
                    version.parts[part]: content
                    for commit, version in made
                    if version.stored
                    for part, content in commit.files.items()
                },
                forgotten={seq for commit in group for seq in commit.forgotten},
                traces={version: trace for version, trace in traced.items() if trace is not None},
            )
        for commit in group:
            _report(commit, began=began)

    def _whole(self, commit: Commit, *, stored: bool) -> Version:
        """Return a version's row with the names of its parts; those that are passed by one made already are not `stored`."""
        version = commit.version if stored else replace(commit.version, by_class=None)
        return with_parts(version, {"frozen": self._frozen, **hashes_of(commit.files)}, stored=stored)


def _is_milestone(commit: Commit) -> bool:
    return commit.version.version % MILESTONE == 0


def _traced(commit: Commit, spans: ExitStack) -> str | None:
    """Have the trace of an update go on, until the spans end; return where it is."""
    spans.enter_context(traces.span("commit", within=commit.update))
    version = commit.version
    traces.tell(version=version.version, seq=version.applied_seq, reason=version.reason)
    return traces.here()


def _report(commit: Commit, *, began: float) -> None:
    """Tell of a version that is durable, and whose writing began then."""
    now, version = time.perf_counter(), commit.version
    items = max(0, version.last_seq - version.first_seq + 1)
    metrics.updates.inc()
    metrics.update_items.inc(items)
    metrics.items_per_update.observe(items)
    metrics.update_seconds.observe(now - commit.started)
    metrics.commit_seconds.observe(now - began)
    if commit.waited_since is not None:  # by the clock, which may have been set
        metrics.learning_delay_seconds.observe(max(0.0, time.time() - commit.waited_since))
    facts = {"version": version.version, "seq": version.applied_seq, "items": items, "seconds": round(now - commit.started, 6)}
    log.info("learner.committed", extra={**facts, "reason": version.reason, "quarantined": len(version.quarantined) or None})


def with_parts(version: Version, parts: Mapping[Part, str], *, stored: bool = True) -> Version:
    """Return the row with the parts of its checkpoint."""
    return replace(version, parts=parts, sha256=fingerprint(parts), stored=stored)
