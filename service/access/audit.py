"""The record of admin acts: who did what, when, and what came of it. A file of JSON lines that is only ever added to."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.store.errors import StoreUnavailable


class AuditLog:
    """Lines in a file, each on stable storage before `append` returns. Processes may share it: a line is one write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record, with the time. Raises StoreUnavailable."""
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **record}).encode() + b"\n"
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                line = _mend(descriptor) + line
                if os.write(descriptor, line) < len(line):
                    raise StoreUnavailable(f"{self._path.name} can't be written: the disk is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise StoreUnavailable(f"{self._path.name} can't be written: {exc.strerror}") from exc

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the records, oldest first; what a power cut left half written is left out. Raises StoreUnavailable."""
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    try:
                        record = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(record, dict):
                        yield record
        except FileNotFoundError:
            return
        except OSError as exc:
            raise StoreUnavailable(f"{self._path.name} can't be read: {exc.strerror}") from exc


def local_source() -> str:
    """Return the name under which acts from the command line are on record: a container's user may have a number only."""
    try:
        return f"local:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"local:{os.getuid()}"


def _mend(descriptor: int) -> bytes:
    """Return what ends a line that a power cut left half written."""
    size = os.fstat(descriptor).st_size
    return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
