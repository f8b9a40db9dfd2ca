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
        os.mkfifo(self._path, 0o600)
        # Open for writing too: with a writer always there, the pipe never reads as ended.
        self._pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)

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
    """Wake every listener of that name. A listener that died leaves a pipe without a reader: it is removed."""
    for path in folder.glob(f"{name}-*"):
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                path.unlink(missing_ok=True)
            continue
        with suppress(BlockingIOError):  # a full pipe has been rung already
            os.write(pipe, b"!")
        os.close(pipe)
