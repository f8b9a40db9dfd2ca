"""Services forked from a warm parent: `launch` is what `subprocess.Popen(["everlearn", "serve", ...])` would be, and faster."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent


class WarmProcess:
    """A service's supervisor; the same words as `subprocess.Popen`."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self._reader = answers.makefile("rb")
        self.pid = int(self._reader.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"everlearn serve (process {self.pid})", timeout or 0.0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _end(self) -> None:
        self.returncode = int(self._reader.readline())
        self._reader.close()
        self._answers.close()


def launch(flags: Sequence[str], *, log: IO[bytes], environment: dict[str, str], preload: str = "") -> WarmProcess:
    """Start `everlearn serve` with these flags, and the libraries named by `preload` in every process."""
    here, there = socket.socketpair()
    request = {
        "flags": list(flags),
        "environment": environment | ({"LD_PRELOAD": preload} if preload else {}),
        "cwd": str(ROOT),
    }
    with there:
        socket.send_fds(_parent(preload), [json.dumps(request).encode()], [log.fileno(), there.fileno()])
    return WarmProcess(here)


@cache
def _parent(preload: str) -> socket.socket:
    """Return the connection to this process's warm parent, which ends with it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_parent", str(there.fileno())],
            cwd=ROOT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "LD_PRELOAD": preload},
            pass_fds=(there.fileno(),),
            stdin=subprocess.DEVNULL,
        )
    atexit.register(_end, here, process)
    return here


def _end(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.wait()
