"""What the learner is doing right now, on disk: after a crash, its successor knows which items to suspect."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from service.forgets import Tries
from service.learning.suspicion import Suspicion
from service.store import StoreUnavailable


@dataclass(frozen=True, slots=True)
class Attempt:
    """An update that has begun."""

    last_seq: int
    items: int


class AttemptFile:
    """One small file, overwritten in place and never synced: the page cache survives the crash of a process, and a
    power cut that loses it costs nothing but a retry."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._unavailable("opened"):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, suspicion: Suspicion, attempt: Attempt | None, tries: Tries | None) -> None:
        """Record the suspicion, the update that begins now, and the forgetting that is under way. Raises StoreUnavailable."""
        record = {
            "suspicion": suspicion.dump(),
            "attempt": asdict(attempt) if attempt else None,
            "forgetting": asdict(tries) if tries else None,
        }
        data = json.dumps(record).encode()
        with self._unavailable("written"):
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))

    def read(self) -> tuple[Suspicion, Attempt | None, Tries | None]:
        """Return what was recorded last; nothing for a new or torn file. Raises StoreUnavailable."""
        with self._unavailable("read"):
            data = os.pread(self._file, 4096, 0)
        try:
            record = json.loads(data)
            attempt, tries = record["attempt"], record.get("forgetting")
            return Suspicion(**record["suspicion"]), Attempt(**attempt) if attempt else None, Tries(**tries) if tries else None
        except (ValueError, KeyError, TypeError):
            return Suspicion(), None, None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    @contextmanager
    def _unavailable(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise StoreUnavailable(f"{self._path.name} can't be {what}: {exc.strerror}") from exc
