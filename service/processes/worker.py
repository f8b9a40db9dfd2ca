"""An API worker's process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import uvicorn

from service import metrics
from service.access import AuditLog, open_access
from service.api.app import create_app
from service.api.service import Service
from service.checkpointing import check_log, check_shaping, shaping_of
from service.processes import telemetry
from service.processes.child import Handover, report, run
from service.processes.http import BoundedProtocol
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog, EmbeddedPredictionJournal


class DrainingServer(uvicorn.Server):
    """A server that lets nobody wait for the learner once it is told to stop."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and finish what is in flight."""
        self._drain()
        await super().shutdown(sockets)


def work(handover: Handover) -> None:
    """Serve until SIGTERM, which ends the process at once where there is no server yet: then there is nothing to finish.

    Raises what makes a start pointless, see `child.FATAL`.
    """
    service = _open(handover)
    limits = handover.settings.limits
    bounded = partial(BoundedProtocol, head_seconds=limits.head_seconds, body_seconds=limits.body_seconds)
    config = uvicorn.Config(
        create_app(service, exported=bool(telemetry.wanted())),
        http=bounded,  # type: ignore[arg-type]  # it is called, and nothing else
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=2048,
        timeout_graceful_shutdown=max(1, int(handover.settings.server.grace_seconds / 2)),
    )
    assert handover.socket is not None
    server = DrainingServer(config, service.served.drain)
    # uvicorn installs its own handler, and raises the signal once more when it has stopped: that one must not kill us.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=[socket.socket(fileno=handover.socket)])


def _open(handover: Handover) -> Service:
    settings = handover.settings
    store = settings.store
    directory = DataDirectory(store.data, timed=metrics.store_timed).open()
    checkpoints = EmbeddedCheckpointStore(directory, keep=store.checkpoints)
    shaping = shaping_of(settings)
    if recorded := checkpoints.shaping():
        check_shaping(recorded, shaping)
    feedback = EmbeddedFeedbackLog(directory)
    check_log(feedback, checkpoints)
    return Service(
        settings,
        shaping,
        feedback=feedback,
        journal=EmbeddedPredictionJournal(
            directory,
            max_age=store.journal_seconds,
            max_bytes=store.journal_bytes,
            on_written=metrics.journal_predictions.inc,
            on_dropped=metrics.journal_dropped.inc,
        ),
        checkpoints=checkpoints,
        verifier=open_access(settings.access, store.data),
        audit=AuditLog(directory.audit),
        leaving=handover.leaving,
        on_ready=partial(report, "ready"),
    )


if __name__ == "__main__":
    # Without a supervisor: finish what is in flight, then end.
    with suppress(KeyboardInterrupt):
        run("api", work, orphaned=partial(os.kill, os.getpid(), signal.SIGTERM))
