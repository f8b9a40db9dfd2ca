"""A small file whose content may change while the service runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from service.access.callers import AccessError

log = logging.getLogger(__name__)

T = TypeVar("T")
Stamp = tuple[int, int, int]

MOST_BYTES = 2**20


class Watched(Generic[T]):
    """What a file says, read again when its stat changes: put a new one in its place by rename.

    A file that can't be read, or is not there any longer, leaves what was read last, and the service's log says so.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T], *, absent: T | None = None) -> None:
        """`parse` raises ValueError; `absent` stands for a file that has never been there.

        Raises AccessError for a first read that fails.
        """
        self._path = path
        self._parse = parse
        self._stamp = self._look()
        if self._stamp is None and absent is not None:
            self._value = absent
            return
        try:
            self._value = self._read()
        except (OSError, ValueError) as exc:
            raise AccessError(f"{path} can't be read: {_told(exc)}") from exc

    @property
    def now(self) -> T:
        """What the file says. One stat a call."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._value = self._read()
                log.info("access.read: %s has changed and was read again", self._path.name)
            except (OSError, ValueError) as exc:
                log.error("access.unreadable: %s: %s; what it said before holds on", self._path.name, _told(exc))
        return self._value

    def _look(self) -> Stamp | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> T:
        with open(self._path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return self._parse(data)


def _told(exc: OSError | ValueError) -> str:
    """Say what is wrong without the content, which may be a secret in the wrong place."""
    return exc.strerror or "it can't be opened" if isinstance(exc, OSError) else str(exc)
