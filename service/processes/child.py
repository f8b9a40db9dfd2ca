"""What the supervisor's children share: how they get their settings, say how they are, and end with it."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TextIO

from models.errors import SpecificationError
from service.access import AccessError
from service.checkpointing import ShapingDiffers
from service.metrics import count_as
from service.processes import EXIT_CONFIG
from service.processes.logs import configure_logging
from service.processes.telemetry import TelemetryError, telemetry
from service.settings import Settings
from service.store import CorruptCheckpoint, DataDirectoryError, LearnerRunning, StoreUnavailable

log = logging.getLogger(__name__)

FATAL = (
    AccessError,
    SpecificationError,
    ShapingDiffers,
    TelemetryError,
    DataDirectoryError,
    LearnerRunning,
    CorruptCheckpoint,
)


@dataclass(frozen=True, slots=True)
class Handover:
    """What the supervisor hands to a child: one line of JSON on its standard input."""

    name: str
    """Of its place among the children: whoever takes it after a death has the same."""
    settings: Settings
    died: str | None
    """How the child before this one died, None for the first."""
    socket: int | None
    """File descriptor of the bound socket."""
    leaving: threading.Event
    """Set once the service is about to stop: it still does its work, but nobody should count on it any longer."""


def run(role: str, work: Callable[[Handover], None], orphaned: Callable[[], None]) -> None:
    """Do a child's work. `orphaned` is called in a thread when the supervisor is gone: its end of the pipe closes."""
    _reports()
    leaving = threading.Event()
    handover = _receive(sys.stdin.readline(), leaving)
    count_as(handover.name)
    server = handover.settings.server
    configure_logging(role, server.log_level, server.log_format)
    threading.Thread(target=_watch_lifeline, args=(leaving, orphaned), name="lifeline", daemon=True).start()
    try:
        with telemetry(handover.name, server.otlp_endpoint):
            work(handover)
    except FATAL as exc:
        report("fatal", str(exc))
        sys.exit(EXIT_CONFIG)
    except StoreUnavailable as exc:  # while it was opened: a full disk, say, that is not full for ever
        log.error("%s.store_failed: %s", role, exc)
        sys.exit(1)


def report(event: str, detail: str = "") -> None:
    """Tell the supervisor something: one line of JSON on standard output."""
    print(json.dumps({"event": event, "detail": detail}), file=_reports(), flush=True)


@cache
def _reports() -> TextIO:
    """Keep standard output for reports: what a model or a library prints goes to standard error from here on."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return reports


def _receive(line: str, leaving: threading.Event) -> Handover:
    handed: dict[str, Any] = json.loads(line)
    settings = Settings.model_validate(handed["settings"])
    return Handover(handed["name"], settings, handed["died"], handed["socket"], leaving)


def _watch_lifeline(leaving: threading.Event, orphaned: Callable[[], None]) -> None:
    """Take the one thing that the supervisor says, which is a line, until its end of the pipe closes."""
    for _ in sys.stdin:
        leaving.set()
    orphaned()
