"""The learner's process."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial

from service import metrics
from service.checkpointing import check_log, shaping_of
from service.learner import Learner
from service.processes.child import Handover, report, run
from service.replay import Records
from service.store.embedded import (
    DataDirectory,
    EmbeddedCheckpointStore,
    EmbeddedFeatureStore,
    EmbeddedFeedbackLog,
    EmbeddedPredictionJournal,
)

log = logging.getLogger(__name__)


def work(handover: Handover) -> None:
    """Learn until SIGTERM. Raises what makes a start pointless, see `child.FATAL`."""
    settings = handover.settings
    store = settings.store
    directory = DataDirectory(store.data, timed=metrics.store_timed).open()
    feedback = EmbeddedFeedbackLog(directory)
    features = EmbeddedFeatureStore(directory)
    checkpoints = EmbeddedCheckpointStore(directory, keep=store.checkpoints)
    check_log(feedback, checkpoints)
    alive = _signs_of_life(settings.learner.watchdog_seconds / 4)
    with checkpoints.lead(_standing_by(alive) if settings.learner.standby else None):
        report("starting")  # it may have stood by, and to load a large model takes its time
        records = Records(
            shaping=shaping_of(settings),
            settings=settings.learner,
            feedback=feedback,
            features=features,
            checkpoints=checkpoints,
            alive=alive,
        )
        journal = partial(EmbeddedPredictionJournal, directory, max_age=store.journal_seconds, max_bytes=store.journal_bytes)
        learner = Learner(records, settings.gate, journal=journal, attempts=directory.suspicion)

        def stop(*_: object) -> None:
            learner.stop()
            feedback.wake()

        signal.signal(signal.SIGTERM, stop)
        if handover.died is not None:  # where the whole service was killed, the item at hand is not to blame
            learner.blame_predecessor(handover.died)
        report("ready")
        learner.run()
    feedback.close()
    features.close()
    checkpoints.close()


def _standing_by(alive: Callable[[], None]) -> Callable[[], None]:
    """Return what is called while another learner leads: there is nothing to do, and nothing is wrong."""
    told = False

    def waiting() -> None:
        nonlocal told
        if not told:
            told = True
            log.info("learner.standing_by: another service learns on this data directory")
            report("ready")
        alive()

    return waiting


def _signs_of_life(every: float) -> Callable[[], None]:
    """Return what tells the supervisor that the learner goes on, now and then: it is called far more often."""
    told = 0.0

    def alive() -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= every:
            told = now
            report("alive")

    return alive


if __name__ == "__main__":
    # Without a supervisor there is nothing to finish: every committed version is safe, the rest is learned again.
    run("learner", work, orphaned=partial(os._exit, 1))
