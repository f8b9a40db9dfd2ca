"""What is left of feedback that was forgotten: tombstones in the log, and nothing anywhere else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from typing import Any

from service.store import CheckpointStore, Entry, FeatureStore, FeedbackLog, PredictionJournal, StoreError

log = logging.getLogger(__name__)

PAGE = 1000  # entries that are in memory at once


class UnknownFeedback(StoreError):
    """Feedback that is named is not in the log."""


def entries_to_forget(feedback: FeedbackLog, act: Entry) -> list[int]:
    """Return the sequence numbers that an act asks to forget, as far as they were not erased yet."""
    named = json.loads(act.label)
    if "source" in named:
        return feedback.brought_by(named["source"], act.seq)
    kinds = feedback.kinds(named["seqs"])
    return [seq for seq, kind in sorted(kinds.items()) if kind in ("feedback", "class") and seq < act.seq]


def asked(
    feedback: FeedbackLog, *, seqs: Sequence[int] = (), keys: Sequence[str] = (), source: str | None = None
) -> dict[str, Any]:
    """Return what an act says of feedback that is named by sequence numbers, by keys, or by who brought it.

    Raises UnknownFeedback as `chosen` does.
    """
    if source is None:
        return {"seqs": chosen(feedback, seqs=seqs, keys=keys)}
    if not feedback.has_brought(source):
        raise UnknownFeedback(f"there is no feedback from the source {source!r}")
    return {"source": source}


def chosen(feedback: FeedbackLog, *, seqs: Sequence[int] = (), keys: Sequence[str] = ()) -> list[int]:
    """Return the sequence numbers of what is to be forgotten, named by them or by keys.

    Raises UnknownFeedback for what is not there: a slip must not look like a success.
    """
    found = {key: feedback.find("feedback", key) for key in keys}
    if missing := [key for key, owned in found.items() if not owned]:
        raise UnknownFeedback(f"there is no feedback with the key {missing[0]!r}")
    kinds = feedback.kinds(seqs)
    for seq in seqs:
        if kinds.get(seq) not in ("feedback", "class", "forgotten"):
            raise UnknownFeedback(f"there is no feedback with sequence number {seq}")
    return sorted({*seqs, *(seq for owned in found.values() for seq in owned)})


def asks_to_forget(act: Entry, entry: Entry) -> bool:
    """Return whether an act asks to forget an entry."""
    named = json.loads(act.label)
    meant = entry.source == named["source"] if "source" in named else entry.seq in named["seqs"]
    return meant and entry.seq < act.seq


def erase(
    seqs: Collection[int],
    *,
    feedback: FeedbackLog,
    checkpoints: CheckpointStore,
    features: FeatureStore,
    journal: Callable[[], PredictionJournal],
    alive: Callable[[], None],
) -> None:
    """Erase what entries said, wherever it is: the log comes last, since it tells what is left to do after a crash.

    `alive` is called now and then. Raises StoreUnavailable; what is left may be erased later.
    """
    ordered = sorted(seqs)
    with closing(journal()) as predictions:
        for start in range(0, len(ordered), PAGE):
            alive()
            page = ordered[start : start + PAGE]
            entries = [entry for entry in feedback.fetch(page).values() if entry.kind != "forgotten"]
            ids = [entry.prediction_id for entry in entries if entry.prediction_id is not None]
            predictions.erase(ids, [entry.instance for entry in entries if entry.instance])
            features.erase(page)
            checkpoints.erase(page)
            feedback.erase(page)
    log.warning("learner.erased", extra={"items": len(ordered)})
