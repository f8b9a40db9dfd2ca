"""The learner's process."""

from __future__ import annotations

import os
import signal
from functools import partial

from service.checkpointing import check_log, shaping_of
from service.learner import Learner
from service.processes.child import Handover, report, run
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeatureStore, EmbeddedFeedbackLog


def work(handover: Handover) -> None:
    """Learn until SIGTERM. Raises what makes a start pointless, see `child.FATAL`."""
    settings = handover.settings
    directory = DataDirectory(settings.store.data).open()
    feedback = EmbeddedFeedbackLog(directory)
    features = EmbeddedFeatureStore(directory)
    checkpoints = EmbeddedCheckpointStore(directory, keep=settings.store.checkpoints)
    check_log(feedback, checkpoints)
    with checkpoints.lead():
        learner = Learner(
            shaping_of(settings),
            settings.learner,
            feedback=feedback,
            features=features,
            checkpoints=checkpoints,
            attempts=directory.suspicion,
        )

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


if __name__ == "__main__":
    # Without a supervisor there is nothing to finish: every committed version is safe, the rest is learned again.
    run("learner", work, orphaned=partial(os._exit, 1))
