"""The supervisor: binds the socket, starts learner and workers, starts them again when they die, and stops them in order."""

from __future__ import annotations

import errno
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
from typing import IO, Literal

from service.access import AccessError, check_exposure, open_access
from service.processes import EXIT_CONFIG
from service.settings import ServerSettings, Settings
from service.store.embedded import DataDirectory

log = logging.getLogger(__name__)

BACKLOG = 2048  # connections that wait to be accepted
BIND_PATIENCE = 3.0  # seconds in which the workers of a supervisor that was killed may let go of the port
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds before a child that died is started again
SETTLED_SECONDS = 10.0  # a child that lived this long starts again without a pause

Role = Literal["learner", "worker"]


class StartError(Exception):
    """The service can't start; the message says why."""


def serve(settings: Settings, started: Callable[[str], None], ready: Callable[[str], None]) -> int:
    """Run the service until SIGTERM or SIGINT; return the exit status.

    `started` is called with the URL once the port is bound, `ready` once every worker answers and the learner learns.
    Raises StartError and DataDirectoryError.
    """
    listener = _bind(settings.server)
    DataDirectory(settings.store.data).create()
    _check_access(settings, listener)
    url = _url(listener)
    started(url)
    folder = tempfile.mkdtemp(prefix="everlearn-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    # Pretrained weights are fetched once, and stay with what is made of them.
    for variable, library in (("TORCH_HOME", "torch"), ("HF_HOME", "huggingface")):
        os.environ.setdefault(variable, str(settings.store.data.absolute() / "downloads" / library))
    try:
        return Supervisor(settings, listener, lambda: ready(url)).run()
    finally:
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)


class Supervisor:
    """The parent of all processes. It imports no torch: it must outlive whatever they run into."""

    def __init__(self, settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
        self._settings = settings
        self._listener = listener
        self._ready = ready
        self._learner = Child("learner", "learner", settings, None)
        self._workers = [Child("worker", f"worker-{number}", settings, listener) for number in range(settings.server.workers)]
        self._waking, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stops = 0
        self._fatal: str | None = None
        self._announced = False

    def run(self) -> int:
        """Watch over the children until a signal comes or one of them can't work at all."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        for child in self._children:
            child.start()
        while not self._stops and self._fatal is None:
            self._look()
            waits = [self._watch(), *(child.pause() for child in self._children)]
            self._wait(min((wait for wait in waits if wait is not None), default=None))
        if self._fatal is None:
            self._drain()
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
        descriptors = [self._waking, *(output.fileno() for output in outputs)]
        select.select(descriptors, [], [], timeout)
        with suppress(BlockingIOError):
            os.read(self._waking, 4096)

    def _look(self) -> None:
        """See what the children say, and start again those that died."""
        for child in self._children:
            if child.pause() == 0:
                child.start()
            status = child.died()
            for event, detail in child.reports():
                self._hear(child, event, detail)
            if status == EXIT_CONFIG:
                self._fatal = self._fatal or f"the {child.role} can't start"
            elif status is not None:
                log.warning("serve.child_died: %s", child.describe_death())

    def _watch(self) -> float | None:
        """Kill a learner that hangs; return for how many seconds more it may be silent."""
        if not self._learner.ready:  # before that it may download a model, which takes its time
            return None
        silent = self._learner.silent()
        if silent > self._settings.learner.watchdog_seconds:
            self._learner.kill(f"no sign of life for {silent:.0f} s")
            return None
        return self._settings.learner.watchdog_seconds - silent

    def _hear(self, child: Child, event: str, detail: str) -> None:
        child.heard()
        if event == "fatal":
            self._fatal = detail
        elif event in ("starting", "ready"):
            child.ready = event == "ready"
            if not self._announced and all(child.ready for child in self._children):
                self._announced = True
                self._ready()

    def _drain(self) -> None:
        """Serve on while gateways see that it is not ready any more. Another signal cuts that short."""
        for worker in self._workers:
            worker.leave()
        self._outlast(self._workers, time.monotonic() + self._settings.server.drain_seconds)

    def _stop(self) -> bool:
        """Stop the workers, then the learner; return whether all ended within the grace time."""
        self._listener.close()  # the workers close theirs: with the last one, a new connection is refused at once
        deadline = time.monotonic() + self._settings.server.grace_seconds
        clean = self._end(self._workers, deadline - min(2.0, self._settings.server.grace_seconds / 4))
        return self._end([self._learner], deadline) and clean

    def _end(self, children: Sequence[Child], deadline: float) -> bool:
        running = [child for child in children if child.running]
        for child in running:
            child.signal(signal.SIGTERM)
        self._outlast(running, deadline)
        late = [child for child in running if child.running]
        for child in late:
            log.warning("serve.killed: the %s did not stop in time", child.role)
            child.signal(signal.SIGKILL)
        return not late

    def _outlast(self, children: Sequence[Child], deadline: float) -> None:
        """Wait until all of some children have ended, until a deadline, or until another signal comes."""
        stops = self._stops
        while any(child.running for child in children) and time.monotonic() < deadline and self._stops == stops:
            self._wait(max(0.0, deadline - time.monotonic()))
            for child in self._children:
                child.died()
                child.reports()  # nobody asks any more, but what is not read would wake us again and again


class Child:
    """One child process at a time, started again when it dies."""

    def __init__(self, role: Role, name: str, settings: Settings, listener: socket.socket | None) -> None:
        self.role = role
        self._name = name
        self.ready = False
        self._settings = settings
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._failures = 0
        self._start_at: float | None = None
        self._heard_at = 0.0
        self._killed: str | None = None
        self._died: str | None = None
        self._unread = b""

    def start(self) -> None:
        """Start the process and hand it what it needs. Its standard input stays open: that is its lifeline."""
        socket_fd = None if self._listener is None else self._listener.fileno()
        # Ctrl-C reaches the whole group, and the supervisor decides: a child is deaf to it from its first moment.
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"service.processes.{self.role}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=() if socket_fd is None else (socket_fd,),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        self._started_at = time.monotonic()
        self._start_at = None
        os.set_blocking(self._pipe("stdout").fileno(), False)
        settings = self._settings.model_dump(mode="json")
        handed = {"name": self._name, "settings": settings, "died": self._died, "socket": socket_fd}
        handover = json.dumps(handed).encode() + b"\n"
        with suppress(BrokenPipeError):  # it died already: `died` will say so
            self._pipe("stdin").write(handover)
            self._pipe("stdin").flush()

    def leave(self) -> None:
        """Tell it that it is about to be stopped: it serves on, but is not ready any longer."""
        with suppress(BrokenPipeError):
            if self._process is not None:
                self._pipe("stdin").write(b"leave\n")
                self._pipe("stdin").flush()

    @property
    def running(self) -> bool:
        """Whether there is a process whose end has not been seen yet."""
        return self._process is not None

    @property
    def output(self) -> IO[bytes] | None:
        """Where its reports come from; None while it is not running."""
        return None if self._process is None else self._process.stdout

    def reports(self) -> list[tuple[str, str]]:
        """Return what it reported since the last call, as (event, detail)."""
        if self._process is not None:
            self._hear()
        *lines, self._unread = self._unread.split(b"\n")
        return [(report["event"], report["detail"]) for report in map(json.loads, lines)]

    def died(self) -> int | None:
        """Return the exit status, once, after the process has ended."""
        status = None if self._process is None else self._process.poll()
        if self._process is None or status is None:
            return None
        self._hear()  # its last words
        self._pipe("stdout").close()
        with suppress(BrokenPipeError):
            self._pipe("stdin").close()
        end = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        self._died, self._killed = self._killed or end, None
        self._process = None
        self.ready = False
        self._plan_restart()
        return status

    def heard(self) -> None:
        """Take note of a sign of life."""
        self._heard_at = time.monotonic()

    def silent(self) -> float:
        """Return how many seconds ago the last sign of life came."""
        return time.monotonic() - self._heard_at

    def kill(self, why: str) -> None:
        """Kill it; its successor is told why."""
        log.error("serve.killed: the %s, %s", self.role, why)
        self._killed = f"killed: {why}"
        self.ready = False
        self.signal(signal.SIGKILL)

    def pause(self) -> float | None:
        """Return how many seconds remain until it shall be started again; None while it runs."""
        return None if self._start_at is None else max(0.0, self._start_at - time.monotonic())

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens where it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def describe_death(self) -> str:
        """Say how the last process ended and when the next one starts."""
        return f"the {self.role} died ({self._died}); starting it again in {self.pause() or 0:.1f} s"

    def _plan_restart(self) -> None:
        lived = time.monotonic() - self._started_at
        self._failures = 0 if lived > SETTLED_SECONDS else self._failures + 1
        pause = FIRST_PAUSE * 2.0 ** max(0, self._failures - 1)
        self._start_at = time.monotonic() + min(pause, LONGEST_PAUSE)

    def _hear(self) -> None:
        self._unread += self._pipe("stdout").read() or b""

    def _pipe(self, name: Literal["stdin", "stdout"]) -> IO[bytes]:
        assert self._process is not None
        pipe: IO[bytes] = getattr(self._process, name)
        return pipe


def _bind(server: ServerSettings) -> socket.socket:
    """Bind the port. Raises StartError that says what is wrong with it."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    deadline = time.monotonic() + BIND_PATIENCE
    while True:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((server.host, server.port))
            listener.listen(BACKLOG)
        except OSError as exc:
            listener.close()
            if exc.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                reason = exc.strerror or str(exc)
                raise StartError(f"can't listen on {server.host} port {server.port}: {reason}") from exc
            time.sleep(0.1)
        else:
            return listener


def _check_access(settings: Settings, listener: socket.socket) -> None:
    """Raise StartError where nobody could be told from anybody, before anybody is answered."""
    try:
        check_exposure(settings.access, listener.getsockname()[0])
        open_access(settings.access, settings.store.data)
    except AccessError as exc:
        listener.close()
        raise StartError(str(exc)) from exc


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
