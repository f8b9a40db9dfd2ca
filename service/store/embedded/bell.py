"""Waking another process: a named pipe per listener in the data directory."""

from __future__ import annotations

import errno
import os
import select
import uuid
from contextlib import suppress
from pathlib import Path


class Bell:
    """A listener's end. A ring before `wait` is not lost: the byte stays in the pipe."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # Under its name only once it has a reader: a ring takes a pipe without one for a dead listener's.
        unnamed = folder / f".{self._path.name}"
        os.mkfifo(unnamed, 0o600)
        # Open for writing too: with a writer always there, the pipe never reads as ended.
        self._pipe = os.open(unnamed, os.O_RDWR | os.O_NONBLOCK)
        unnamed.rename(self._path)

    def wait(self, timeout: float) -> None:
        """Return after a ring, or after `timeout` seconds."""
        if select.select([self._pipe], [], [], timeout)[0]:
            with suppress(BlockingIOError):
                os.read(self._pipe, 65536)

    def close(self) -> None:
        """Stop listening."""
        self._path.unlink(missing_ok=True)
        os.close(self._pipe)


def ring(folder: Path, name: str) -> None:
    """Wake every listener of that name, as far as that is possible: those who are not reached look again by themselves."""
    with suppress(OSError):  # no file descriptor is left
        for path in list(folder.glob(f"{name}-*")):
            _ring_one(path)


def _ring_one(path: Path) -> None:
    """Wake one listener. One that died leaves a pipe without a reader: it is removed."""
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            path.unlink(missing_ok=True)
        return
    try:
        # A full pipe has been rung already; a broken one belongs to a listener that has just closed.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(pipe, b"!")
    finally:
        os.close(pipe)
