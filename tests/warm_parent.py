"""The process that services are forked from: everything is imported, no thread runs and torch has computed nothing.

Importing torch dominates the start of a service. What is forked runs `everlearn serve` as it is; only the way that the
supervisor starts its children is another: a fork that does what an exec would.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import logging
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Collection
from contextlib import closing
from ctypes import CDLL
from types import SimpleNamespace
from typing import IO, Any

IMPORTED = (
    *("service.cli", "service.processes.supervisor", "service.learner", "service.api.app", "service.processes.http"),
    *("uvicorn.lifespan.on", "uvicorn.loops.uvloop", "uvicorn.protocols.websockets.auto", "rich.console"),
    *("river.drift", "models.encoders.tabular", "models.heads.classification", "uvicorn.loops.auto", "pydantic.v1"),
    "torch._dynamo",  # the first optimizer imports it, and that takes as long as all the rest
)


def main(control: socket.socket) -> None:
    """Fork a service for each request, and say how it ended, until whoever asks is gone."""
    with tempfile.TemporaryDirectory(prefix="everlearn-warm-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # the way to count is chosen when the library is imported
        for name in IMPORTED:
            importlib.import_module(name)
        assert threading.active_count() == 1, "a thread would not survive the fork"
        gc.freeze()
        _serve(control, _open_descriptors())


def _serve(control: socket.socket, kept: Collection[int]) -> None:
    running = selectors.DefaultSelector()
    running.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in running.select():
            if key.fileobj is not control:
                running.unregister(key.fileobj)
                os.close(key.fd)
                _tell_end(*key.data)
            elif (request := _receive(control)) is None:
                for left in running.get_map().values():
                    if left.data is not None:
                        os.killpg(left.data[0], signal.SIGKILL)
                return
            else:
                asked, log, answers = request
                pid = _fork(lambda asked=asked, log=log: _supervise(asked, log, kept), {*kept, log})
                os.close(log)
                answers.sendall(b"%d\n" % pid)
                running.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers))


def _receive(control: socket.socket) -> tuple[dict[str, Any], int, socket.socket] | None:
    data, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 2)
    if not data:
        return None
    log, answers = descriptors
    return json.loads(data), log, socket.socket(fileno=answers)


def _tell_end(pid: int, answers: socket.socket) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with closing(answers):
        answers.sendall(b"%d\n" % status)


def _supervise(asked: dict[str, Any], log: int, kept: Collection[int]) -> None:
    """Be `everlearn serve`, the leader of a process group."""
    os.setsid()
    os.dup2(log, 2)
    os.close(log)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["everlearn", "serve", *asked["flags"]]
    if "LD_PRELOAD" in os.environ:
        CDLL(None).fault_attach()  # the shim looks for its plan when a program starts
    from service.cli import main as everlearn
    from service.processes import supervisor

    supervisor.subprocess = SimpleNamespace(PIPE=subprocess.PIPE, Popen=_children_keeping(kept))  # type: ignore[assignment]
    everlearn()


def _children_keeping(kept: Collection[int]) -> Callable[..., Child]:
    def start(command: list[str], *, stdin: int, stdout: int, pass_fds: tuple[int, ...]) -> Child:
        return Child(command[-1], {*kept, *pass_fds})

    return start


class Child:
    """What the supervisor needs of `subprocess.Popen`."""

    def __init__(self, module: str, kept: Collection[int]) -> None:
        child_in, stdin = os.pipe2(os.O_CLOEXEC)
        stdout, child_out = os.pipe2(os.O_CLOEXEC)
        self.pid = _fork(lambda: _work(module, child_in, child_out), {*kept, child_in, child_out})
        os.close(child_in)
        os.close(child_out)
        self.stdin: IO[bytes] = os.fdopen(stdin, "wb")
        self.stdout: IO[bytes] = os.fdopen(stdout, "rb", buffering=0)
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _work(module: str, stdin: int, stdout: int) -> None:
    """Be a child of the supervisor."""
    role = module.rpartition(".")[2]
    with open("/proc/self/comm", "w") as name:
        name.write(role)
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.close(stdin)
    os.close(stdout)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__")


def _fork(work: Callable[[], None], kept: Collection[int]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _forget_parent(kept)
        status = _status_of(work)
    finally:
        os._exit(status)


def _forget_parent(kept: Collection[int]) -> None:
    """Let go of what an exec would let go of."""
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor in _open_descriptors():
        if descriptor not in kept:
            os.close(descriptor)
    logging.root.handlers.clear()


def _status_of(work: Callable[[], None]) -> int:
    """Run to the end as an interpreter would; return the exit status."""
    status = 0
    try:
        work()
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
    except BaseException:  # noqa: BLE001  # as an interpreter does
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status


def _open_descriptors() -> list[int]:
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    return [descriptor for descriptor in listed if os.path.exists(f"/proc/self/fd/{descriptor}")]


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
