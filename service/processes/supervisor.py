"""The supervisor: binds the socket, starts learner and workers, starts them again when they die, and stops them in order."""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

from service.processes import EXIT_CONFIG
from service.settings import ServerSettings, Settings
from service.store.embedded import DataDirectory

log = logging.getLogger(__name__)

BIND_PATIENCE = 3.0  # seconds in which the workers of a supervisor that was killed may let go of the port
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds before a child that died is started again
SETTLED_SECONDS = 10.0  # a child that lived this long starts again without a pause

Role = Literal["learner", "worker"]


class StartError(Exception):
    """The service can't start; the message says why."""


def serve(settings: Settings, started: Callable[[str], None], ready: Callable[[str], None]) -> int:
    """Run the service until SIGTERM or SIGINT; return the exit status.

    `started` is called with the URL once the port is bound, `ready` once every worker answers predictions.
    Raises StartError and DataDirectoryError.
    """
    DataDirectory(settings.store.data).create()
    listener = _bind(settings.server)
    url = _url(listener)
    started(url)
    folder = tempfile.mkdtemp(prefix="everlearn-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        return Supervisor(settings, listener, lambda: ready(url)).run()
    finally:
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)


class Supervisor:
    """The parent of all processes. It imports no torch: it must outlive whatever they run into."""

    def __init__(self, settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
        self._settings = settings
        self._ready = ready
        self._learner = Child("learner", settings, None)
        self._workers = [Child("worker", settings, listener) for _ in range(settings.server.workers)]
        self._waking, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stops = 0
        self._fatal: str | None = None

    def run(self) -> int:
        """Watch over the children until a signal comes or one of them can't work at all."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        for child in self._children:
            child.start()
        while not self._stops and self._fatal is None:
            self._look()
            pauses = [pause for child in self._children if (pause := child.pause()) is not None]
            self._wait(min(pauses, default=None))
        clean = self._stop()
        if self._fatal is not None:
            raise StartError(self._fatal)
        return 0 if clean else 1

    @property
    def _children(self) -> Sequence[Child]:
        return [self._learner, *self._workers]

    def _on_signal(self, number: int, _: object) -> None:
        # The handler runs between two bytecodes of the main thread: it may write to a pipe, and take no lock.
        if number != signal.SIGCHLD:
            self._stops += 1
        with suppress(BlockingIOError):
            os.write(self._waker, b"!")

    def _wait(self, timeout: float | None) -> None:
        """Wait for a signal, a child's report or the time-out."""
        outputs = [child.output for child in self._children if child.output is not None]
        select.select([self._waking, *outputs], [], [], timeout)
        with suppress(BlockingIOError):
            os.read(self._waking, 4096)

    def _look(self) -> None:
        """See what the children say, and start again those that died."""
        for child in self._children:
            for event, detail in child.reports():
                if event == "fatal":
                    self._fatal = detail
                elif event == "ready":
                    child.ready = True
                    if all(worker.ready for worker in self._workers):
                        self._ready()
            died = child.died()
            if died == EXIT_CONFIG:
                self._fatal = self._fatal or f"the {child.role} can't start"
            elif died is None and child.pause() == 0:
                child.start()

    def _stop(self) -> bool:
        """Stop the workers, then the learner; return whether all ended within the grace time."""
        deadline = time.monotonic() + self._settings.server.grace_seconds
        clean = self._end(self._workers, deadline - min(2.0, self._settings.server.grace_seconds / 4))
        return self._end([self._learner], deadline) and clean

    def _end(self, children: Sequence[Child], deadline: float) -> bool:
        running = [child for child in children if child.running]
        for child in running:
            child.signal(signal.SIGTERM)
        stops = self._stops
        while any(child.running for child in running) and time.monotonic() < deadline and self._stops == stops:
            self._wait(max(0.0, deadline - time.monotonic()))
            for child in running:
                child.died()
        late = [child for child in running if child.running]
        for child in late:
            log.warning("serve.killed: the %s did not stop in time", child.role)
            child.signal(signal.SIGKILL)
        return not late
