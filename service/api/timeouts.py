"""Labels for predictions that nobody labelled in time: a click that never comes means that there was none."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.base import Head, Label, OnlineModel
from models.errors import LabelError, SpecificationError
from service.settings import StoreSettings, TimeoutSettings
from service.store import FeedbackLog, NewEntry, Prediction, PredictionJournal, StoreError

log = logging.getLogger(__name__)

PAGE = 500
MOST_SECONDS = 5.0  # between two sweeps


class Timeouts:
    """A thread that sweeps through the journal. What it finds becomes entries of the log, so learning knows no clock.

    Every worker has one, and starts from the beginning: a prediction gets its label once, since the log takes a
    timeout for one that has none only.
    """

    def __init__(
        self,
        label: Label,
        seconds: float,
        *,
        feedback: FeedbackLog,
        journal: PredictionJournal,
        has_room: Callable[[], bool],
        fits: Callable[[bytes], bool],
    ) -> None:
        """`has_room` says whether the learner keeps up: real labels go first. `fits` says what can have the label."""
        self._label = json.dumps(label)
        self._seconds = seconds
        self._feedback = feedback
        self._journal = journal
        self._has_room = has_room
        self._fits = fits
        self._place = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timeouts", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """End within a moment."""
        self._stopping.set()
        self._thread.join()

    def sweep(self) -> int:
        """Label the next predictions that are old enough; return how many were looked at. Raises StoreError."""
        due, place = self._journal.older(self._seconds, self._place, PAGE)
        if due:
            entries = [self._entry(prediction) for prediction in due if self._fits(prediction.instance)]
            if entries:
                self._feedback.append(entries).result()
            self._place = place
        return len(due)

    def _run(self) -> None:
        pause = min(MOST_SECONDS, self._seconds / 4)
        while not self._stopping.wait(pause):
            try:
                while not self._stopping.is_set() and self._has_room() and self.sweep() == PAGE:
                    pass
            except StoreError as exc:  # tried again
                log.warning("timeouts.failed: %s", exc)

    def _entry(self, prediction: Prediction) -> NewEntry:
        return NewEntry(
            instance=prediction.instance,
            label=self._label,
            digest=b"",
            prediction_id=prediction.id,
            predicted_by=prediction.version,
            answer=prediction.answer,
            only_first=True,
        )


def fits(model: OnlineModel, label: Label, instance: bytes) -> bool:
    """Return whether an instance, as the journal keeps it, can have a label."""
    try:
        model.head.check_label(label, lambda: model.input.load(instance))
    except LabelError:
        return False
    return True


def timeout_label(head: Head, timeout: TimeoutSettings, store: StoreSettings) -> Label:
    """Return the label in the form that is logged. Raises SpecificationError for one that the head can't take."""
    if timeout.seconds >= store.journal_seconds:
        raise SpecificationError("timeout.seconds", f"predictions are kept for {store.journal_seconds:g} s only")
    adapter: TypeAdapter[Any] = TypeAdapter(head.label_type)
    try:
        return head.parse_label(adapter.validate_python(timeout.label))
    except (ValidationError, LabelError) as exc:
        raise SpecificationError("timeout.label", f"{timeout.label!r} is no label of this model") from exc
