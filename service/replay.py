"""Replay: any version recomputed from the log, and compared to the bit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from service.checkpointing import (
    Shaping,
    available,
    declaration,
    environment,
    files_of,
    fingerprint,
    first_state,
    hashes_of,
    items_of,
    load_state,
    recall_features,
)
from service.learning.arithmetic import use_deterministic_torch
from service.learning.update import LearningState, Step
from service.reasons import CLASSES, FORGET, INITIAL, ROLLBACK
from service.settings import LearnerSettings
from service.store import CheckpointStore, CorruptCheckpoint, Entry, FeatureStore, FeedbackLog, Part, StoreError, Version

PAGE = 500


class ReplayImpossible(StoreError):
    """The log does not hold what a version learned from."""


class LearnedFromForgotten(ReplayImpossible):
    """A version learned from feedback that was forgotten since."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A version and what replay says of it."""

    version: Version
    identical: bool | None
    """None where it can't be said: it learned from what was forgotten, and is not on the served line any more."""
    environment: Mapping[str, Any]
    """Where it was recomputed: elsewhere than it was made, the same bits are not promised."""
    files: Mapping[Part, bytes] = field(default_factory=dict)
    """What was recomputed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What replay reads: the settings that shaped learning, where it computes, and the stores."""

    shaping: Shaping
    settings: LearnerSettings
    feedback: FeedbackLog
    checkpoints: CheckpointStore
    features: FeatureStore | None = None
    """What a frozen encoder said, which spares its work; without it that is worked out anew."""
    alive: Callable[[], None] = lambda: None
    """Called before each version that is made, and each step of the learner."""


def replay(records: Records, *, after: int = 0) -> Iterator[Replayed]:
    """Recompute every version after a stored one, in the order of their numbers, by the steps that their rows record.

    Raises CorruptCheckpoint, ReplayImpossible, and SpecificationError where the learner's device is not here.
    """
    available("learner.device", records.settings.device)
    use_deterministic_torch(records.settings.threads)
    here = environment(records.settings.device, records.settings.threads)
    start = records.checkpoints.get(after)
    assert start is not None, f"there is no version {after}"
    state, at = load_state(records.shaping, records.settings.device, records.checkpoints, start), after
    gone: set[int] = set()
    for version in ascending(records.checkpoints, after):
        try:
            if version.parent in gone:
                raise LearnedFromForgotten
            if version.parent != at:
                state = rebuild(records, _parent(records.checkpoints, version))
            redo(records, state, version)
        except LearnedFromForgotten:
            if version.superseded is None:
                raise
            gone.add(version.version)
            yield Replayed(version, None, here)
            continue
        at = version.version
        yield _compared(version, state, files_of(state), here)


def recompute(records: Records, version: Version, *, passed: Callable[[int, int], object] = lambda *_: None) -> Replayed:
    """Recompute one version from the nearest checkpoint before it, whatever its own holds.

    `passed` is told how many versions of how many are made anew. Raises as `replay` does.
    """
    available("learner.device", records.settings.device)
    use_deterministic_torch(records.settings.threads)
    if version.parent is None:
        state = first_state(records.shaping, records.settings.device)
    else:
        state = rebuild(records, version, trusted=False, passed=passed)
    files: dict[Part, bytes] = {"frozen": state.frozen_bytes(), **files_of(state)}
    return _compared(version, state, files, environment(records.settings.device, records.settings.threads))


def rebuild(
    records: Records, version: Version, *, trusted: bool = True, passed: Callable[[int, int], object] = lambda *_: None
) -> LearningState:
    """Return the state of any version: its checkpoint's, or recomputed from the nearest one before it that is whole.

    Its own is passed over unless it is trusted. Raises CorruptCheckpoint, ReplayImpossible and SpecificationError.
    """
    way = [] if trusted else [version]
    version = version if trusted else _parent(records.checkpoints, version)
    while (state := _stored_state(records, version)) is None:
        way.append(version)
        version = _parent(records.checkpoints, version)
    for done, next_ in enumerate(reversed(way)):
        passed(done, len(way))
        redo(records, state, next_)
    return state


def redo(records: Records, state: LearningState, version: Version) -> None:
    """Turn the state of a version's parent into its own. Raises ReplayImpossible."""
    records.alive()
    if version.reason in (ROLLBACK, FORGET):  # the same state under another number
        return
    steps = [Step(tuple(new), tuple(rehearsed)) for new, rehearsed in version.steps]
    if version.reason == CLASSES:
        entries = fetch(records.feedback, version, {seq for step in steps for seq in step.new})
        state.declare([declaration(entries[seq]) for step in steps for seq in step.new])
        return
    seqs = {seq for step in steps for seq in chain(step.new, step.rehearsed)}
    if records.features is not None:
        recall_features(state, records.features.fetch, seqs)
    entries = fetch(records.feedback, version, seqs)
    items = items_of(state.model.input, entries, encoded=state.features)
    state.update(steps, items, version.weights, records.alive)


def fetch(feedback: FeedbackLog, version: Version, seqs: Collection[int]) -> dict[int, Entry]:
    """Return the entries that a version learned from. Raises ReplayImpossible."""
    found = feedback.fetch(sorted(seqs))
    if missing := set(seqs) - found.keys():
        raise ReplayImpossible(f"version {version.version} learned from seq {min(missing)}, which the log does not have")
    if forgotten := [seq for seq, entry in found.items() if entry.kind == "forgotten"]:
        raise LearnedFromForgotten(f"version {version.version} learned from seq {min(forgotten)}, which was forgotten")
    return found


def ascending(checkpoints: CheckpointStore, after: int, *, at_once: int = PAGE) -> Iterator[Version]:
    """Yield the versions after one, oldest first; so many rows are read at once."""
    while page := checkpoints.following(after, at_once):
        yield from page
        after = page[-1].version


def _parent(checkpoints: CheckpointStore, version: Version) -> Version:
    parent = None if version.parent is None else checkpoints.get(version.parent)
    if parent is None:
        raise ReplayImpossible(f"version {version.version} has no version before it")
    return parent


def _stored_state(records: Records, version: Version) -> LearningState | None:
    """Return a version's state from its checkpoint, None where that is gone or damaged. The first is made anew then."""
    if version.stored:
        try:
            return load_state(records.shaping, records.settings.device, records.checkpoints, version)
        except CorruptCheckpoint:
            if version.reason != INITIAL:
                return None
            state = first_state(records.shaping, records.settings.device)
            if not _is(version, files_of(state)):
                raise
            return state
    return None


def _compared(version: Version, state: LearningState, files: Mapping[Part, bytes], here: Mapping[str, Any]) -> Replayed:
    return Replayed(version, state.updates == version.updates and _is(version, files), here, files)


def _is(version: Version, files: Mapping[Part, bytes]) -> bool:
    return fingerprint({"frozen": version.parts["frozen"], **hashes_of(files)}) == version.sha256
