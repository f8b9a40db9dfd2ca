"""Replay: every version recomputed from the log, and compared to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from service.checkpointing import (
    CLASSES,
    Shaping,
    available,
    declaration,
    environment,
    fingerprint,
    item,
    load_state,
    recall_features,
)
from service.learner import use_deterministic_torch
from service.learning.update import LearningState, Step
from service.settings import LearnerSettings
from service.store import CheckpointStore, FeatureStore, FeedbackLog, Part, StoreError, Version

PAGE = 500


class ReplayImpossible(StoreError):
    """The log does not hold what a version learned from."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A version and what replay says of it."""

    version: Version
    identical: bool
    environment_differs: bool


def replay(
    shaping: Shaping,
    settings: LearnerSettings,
    feedback: FeedbackLog,
    checkpoints: CheckpointStore,
    *,
    features: FeatureStore | None = None,
    after: int = 0,
) -> Iterator[Replayed]:
    """Recompute every version after a stored one, by the steps its row records.

    From version 0 on, what a frozen encoder says is worked out anew; from a later one, `features` has what it said before.

    Raises CorruptCheckpoint, ReplayImpossible, and SpecificationError where the learner's device is not here.
    """
    available("learner.device", settings.device)
    use_deterministic_torch(settings.threads)
    here = environment(settings.device, settings.threads)
    start = checkpoints.get(after)
    assert start is not None, f"there is no version {after}"
    state = load_state(shaping, settings.device, checkpoints, start)
    for version in ascending(checkpoints, after):
        if features is not None:
            recall_features(state, features, {seq for _, rehearsed in version.steps for seq in rehearsed})
        _redo(state, version, feedback)
        identical = state.version == version.version and _fingerprint(state, start) == version.sha256
        yield Replayed(version, identical, here != version.environment)


def _redo(state: LearningState, version: Version, feedback: FeedbackLog) -> None:
    if version.reason == CLASSES:
        entries = feedback.read(version.first_seq - 1, version.last_seq - version.first_seq + 1)
        declared = [entry for entry in entries if entry.seq <= version.last_seq]
        if not declared or any(entry.kind != "class" for entry in declared):
            raise ReplayImpossible(f"version {version.version} learned classes which the log does not have")
        state.declare([declaration(entry) for entry in declared])
        return
    steps = [Step(tuple(new), tuple(rehearsed)) for new, rehearsed in version.steps]
    seqs = {seq for step in steps for seq in chain(step.new, step.rehearsed)}
    found = feedback.fetch(sorted(seqs))
    if missing := seqs - found.keys():
        raise ReplayImpossible(f"version {version.version} learned from seq {min(missing)}, which the log does not have")
    state.update(steps, {seq: item(state.model.input, entry, encoded=state.features) for seq, entry in found.items()})


def _fingerprint(state: LearningState, start: Version) -> str:
    files: dict[Part, bytes] = {"model": state.model_bytes(), "learner": state.learner_bytes()}
    hashes: dict[Part, str] = {part: hashlib.sha256(data).hexdigest() for part, data in files.items()}
    return fingerprint({"frozen": start.parts["frozen"], **hashes})


def ascending(checkpoints: CheckpointStore, after: int) -> Iterator[Version]:
    """Yield the versions after one, oldest first."""
    while page := checkpoints.following(after, PAGE):
        yield from page
        after = page[-1].version
