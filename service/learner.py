"""The learner: FeedbackLog.read -> evaluate -> update -> gate -> CheckpointStore.commit, again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from models.errors import ModelError
from service import metrics
from service.attempts import Attempt, AttemptFile
from service.checkpointing import (
    CLASSES,
    INITIAL,
    UPDATE,
    Shaping,
    available,
    check_features,
    check_shaping,
    declaration,
    environment,
    fingerprint,
    first_state,
    item,
    load_state,
    of_one_kind,
    recall_features,
)
from service.learning.gate import UpdateRefused
from service.learning.update import Item, LearningState, Step
from service.settings import LearnerSettings
from service.store import CheckpointStore, Entry, FeatureStore, FeedbackLog, Part, StoreError, StoreUnavailable, Version

log = logging.getLogger(__name__)

NOTHING: Mapping[int, str] = MappingProxyType({})
NO_FEATURES: Mapping[int, bytes] = MappingProxyType({})

POLL_SECONDS = 5.0  # the safety net under the bell
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds between tries while the store fails


class Learner:
    """Turns feedback into versions. Whoever makes one holds `CheckpointStore.lead`.

    Raises SpecificationError, ShapingDiffers, CorruptCheckpoint or DataDirectoryError where it can't start.
    """

    def __init__(
        self,
        shaping: Shaping,
        settings: LearnerSettings,
        *,
        feedback: FeedbackLog,
        features: FeatureStore,
        checkpoints: CheckpointStore,
        attempts: Path,
    ) -> None:
        self._shaping = shaping
        self._settings = settings
        self._feedback = feedback
        self._features = features
        self._checkpoints = checkpoints
        self._attempts = AttemptFile(attempts)
        self._suspicion, self._interrupted = self._attempts.read()
        available("learner.device", settings.device)
        self._environment = environment(settings.device, settings.threads)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._committing: Future[None] | None = None
        self._stopping = False
        use_deterministic_torch(settings.threads)
        self._state = self._initialise() if checkpoints.latest() is None else self._load()

    def run(self) -> None:
        """Learn until `stop`, and leave with every update committed. Raises CorruptCheckpoint."""
        pause = FIRST_PAUSE
        while not self._stopping:
            try:
                if not self.step():
                    self._feedback.wait(POLL_SECONDS)
                pause = FIRST_PAUSE
            except StoreUnavailable as exc:
                log.error("learner.store_failed: %s; trying again in %.1f s", exc, pause)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                self._reload()
        self._disk.shutdown()
        self._attempts.close()

    def stop(self) -> None:
        """Leave `run` after the update that is under way. Safe in a signal handler, which must ring the bell too."""
        self._stopping = True

    def blame_predecessor(self, reason: str) -> None:
        """Suspect what the last learner was at when it died, if it was at anything: so an item that kills it is found."""
        attempt, self._interrupted = self._interrupted, None
        if attempt is not None and attempt.last_seq > self._applied:
            self._failed(attempt, f"the learner died: {reason}", certain=False)

    def step(self) -> bool:
        """Make one update of what waits; return whether anything did. Raises StoreUnavailable."""
        limit = self._state.settings.update_items
        entries = of_one_kind(self._feedback.read(self._applied, min(limit, self._suspicion.limit or limit)))
        if not entries:
            self._finish_commit()
            return False
        if self._suspicion.limit is not None:
            # The next update may end the process: what was cleared before it must not be lost with it.
            self._finish_commit()
        attempt = Attempt(entries[-1].seq, len(entries))
        self._attempts.write(self._suspicion, attempt)
        try:
            self._learn(entries)
        except StoreError:
            raise
        except Exception as exc:
            # A model of the user's own may raise anything: its items are suspected, and the learner goes on.
            log.warning("learner.update_failed: %d items up to seq %d", len(entries), attempt.last_seq, exc_info=exc)
            self._reload()
            self._failed(attempt, f"{type(exc).__name__}: {exc}", certain=isinstance(exc, ModelError | UpdateRefused))
        else:
            self._suspicion.passed(attempt.last_seq)
        return True

    def _learn(self, entries: Sequence[Entry]) -> None:
        started = time.perf_counter()
        seqs = (entries[0].seq, entries[-1].seq)
        if entries[0].kind == "class":
            self._state.declare([declaration(entry) for entry in entries])
            self._commit(seqs, CLASSES, started)
            return
        steps = self._state.plan([entry.seq for entry in entries])
        items = self._items(entries, steps)
        known = set(self._state.features)
        self._state.update(steps, items)
        added = {seq: self._state.features[seq].cpu().numpy().tobytes() for seq in self._state.features.keys() - known}
        self._commit(seqs, UPDATE, started, steps=steps, features=added)

    def _items(self, entries: Sequence[Entry], steps: Sequence[Step]) -> dict[int, Item]:
        rehearsed = self._feedback.fetch(sorted({seq for step in steps for seq in step.rehearsed}))
        recall_features(self._state, self._features, rehearsed)
        kind = self._state.model.input
        items = {seq: item(kind, entry, encoded=self._state.features) for seq, entry in rehearsed.items()}
        return items | {entry.seq: item(kind, entry) for entry in entries}

    def _failed(self, attempt: Attempt, reason: str, *, certain: bool) -> None:
        """Narrow the suspicion down, or set the one item aside that is left of it."""
        metrics.update_failures.inc()
        self._suspicion.failed(attempt.last_seq, attempt.items)
        if attempt.items == 1 and (certain or self._suspicion.convicts):
            self._quarantine(attempt.last_seq, reason)
            self._suspicion.passed(attempt.last_seq)
        self._attempts.write(self._suspicion, None)

    def _quarantine(self, seq: int, reason: str) -> None:
        """Commit a version that has consumed the item and learned nothing."""
        log.warning("learner.quarantined: seq %d: %s", seq, reason)
        metrics.quarantined.inc()
        self._state.update([], {})
        self._commit((seq, seq), UPDATE, time.perf_counter(), quarantined={seq: reason})

    def _commit(
        self,
        seqs: tuple[int, int],
        reason: str,
        started: float,
        *,
        steps: Sequence[Step] = (),
        quarantined: Mapping[int, str] = NOTHING,
        features: Mapping[int, bytes] = NO_FEATURES,
    ) -> None:
        """Hand the new version to the disk: the next update computes while this one is written."""
        row = self._row(seqs, reason, steps, quarantined)
        files = self._files()
        self._finish_commit()
        self._committing = self._disk.submit(self._write, row, files, features, started)
        self._applied = seqs[1]

    def _finish_commit(self) -> None:
        """Wait for the commit that is under way. Raises StoreUnavailable if it failed."""
        committing, self._committing = self._committing, None
        if committing is not None:
            committing.result()

    def _write(
        self, row: Mapping[str, Any], files: Mapping[Part, bytes], features: Mapping[int, bytes], started: float
    ) -> None:
        if features:
            self._features.put(features)
        parts = {"frozen": self._frozen, **self._put(files)}
        self._checkpoints.commit(Version(**row, parts=parts, sha256=fingerprint(parts)))
        metrics.updates.inc()
        metrics.update_items.inc(row["last_seq"] - row["first_seq"] + 1)
        metrics.update_seconds.observe(time.perf_counter() - started)

    def _put(self, files: Mapping[Part, bytes]) -> dict[Part, str]:
        return {part: self._checkpoints.put(data) for part, data in files.items()}

    def _files(self) -> dict[Part, bytes]:
        return {"model": self._state.model_bytes(), "learner": self._state.learner_bytes()}

    def _row(
        self, seqs: tuple[int, int], reason: str, steps: Sequence[Step] = (), quarantined: Mapping[int, str] = NOTHING
    ) -> dict[str, Any]:
        """Return what the version's row says, but for its files."""
        version = self._state.version
        return {
            "version": version,
            "parent": version - 1 if version else None,
            "created_at": time.time(),
            "first_seq": seqs[0],
            "last_seq": seqs[1],
            "steps": [[list(step.new), list(step.rehearsed)] for step in steps],
            "quarantined": dict(quarantined),
            "metrics": self._state.metrics(),
            "by_class": self._state.by_class(),
            "environment": self._environment,
            "reason": reason,
        }

    def _initialise(self) -> LearningState:
        """Commit version 0: the initial weights, before any feedback."""
        self._state = first_state(self._shaping, self._settings.device)
        parts = self._put({"frozen": self._state.frozen_bytes(), **self._files()})
        row = self._row((1, 0), INITIAL)
        self._checkpoints.initialise(self._shaping, Version(**row, parts=parts, sha256=fingerprint(parts)))
        self._frozen, self._applied = parts["frozen"], 0
        return self._state

    def _load(self) -> LearningState:
        """Take up where the newest version ended."""
        latest = self._checkpoints.latest()
        recorded = self._checkpoints.shaping()
        assert latest is not None, "who loads has seen a version"
        assert recorded is not None, "version 0 and the shaping settings are committed as one"
        check_shaping(recorded, self._shaping)
        self._frozen, self._applied = latest.parts["frozen"], latest.last_seq
        state = load_state(self._shaping, self._settings.device, self._checkpoints, latest)
        check_features(state, self._features)
        return state

    def _reload(self) -> None:
        """Drop a torn state. A commit that is under way may still succeed, so it is waited for."""
        with suppress(StoreUnavailable):
            self._finish_commit()
        self._state = self._load()


def use_deterministic_torch(threads: int) -> None:
    """Make torch compute the same bits again: fixed threads, deterministic kernels (a warning where there are none)."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
