"""What became of an entry of the log, as the versions tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.erasure import asks_to_forget, entries_to_forget
from service.position import Position
from service.store import ACTS, CheckpointStore, Entry, FeedbackLog, Taken, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of an entry, by which version, and why."""

    status: Literal["pending", "skipped", "forgotten"] | Taken
    model_version: int | None = None
    reason: str | None = None


def fate_of(feedback: FeedbackLog, checkpoints: CheckpointStore, entry: Entry) -> Fate:
    """Return what became of an entry on the served line, and which version took it there."""
    seq = entry.seq
    if entry.kind in ACTS and (made := checkpoints.made_by(seq)) is not None:
        if entry.kind == "forget" and entries_to_forget(feedback, entry):
            return Fate(status="pending", reason="unlearned; what the feedback said is being erased")
        return Fate(status="applied", model_version=made.version)
    takers = checkpoints.takers(seq)
    served = next((row for row in takers if row.superseded is None or entry.kind in ACTS), None)  # acts are not done again
    if served is not None:
        return Fate(status=_taken(served, seq), model_version=served.version, reason=served.quarantined.get(seq))
    latest = checkpoints.latest()
    if entry.kind != "forgotten" and (not takers or latest is None or not Position.of(latest).contains(seq)):
        return Fate(status="pending")
    if entry.kind == "forgotten" or _unlearned(feedback, checkpoints, entry):
        return Fate(status="forgotten")
    reason = f"version {takers[0].superseded} went back to before version {takers[0].version}, which had taken it"
    return Fate(status="skipped", reason=reason)


def refusal(checkpoints: CheckpointStore, seq: int) -> str | None:
    """Return why an entry was quarantined, None where it was not."""
    return next((row.quarantined.get(seq) for row in checkpoints.takers(seq)), None)


def _taken(version: Version, seq: int) -> Taken:
    fate = version.fate(seq)
    assert fate is not None, "who takes an entry says what it did with it"
    return fate


def _unlearned(feedback: FeedbackLog, checkpoints: CheckpointStore, entry: Entry) -> bool:
    """Return whether an entry is on the way to a tombstone: the served line has been made anew without it."""
    acts = (act for act in feedback.acts("forget") if asks_to_forget(act, entry))
    return any(checkpoints.made_by(act.seq) is not None for act in acts)
