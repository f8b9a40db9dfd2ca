"""What the learner is doing right now, on disk: after a crash, its successor knows which items to suspect."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

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
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, suspicion: Suspicion, attempt: Attempt | None) -> None:
        """Record the suspicion, and the update that begins now. Raises StoreUnavailable."""
        record = {"suspicion": suspicion.dump(), "attempt": asdict(attempt) if attempt else None}
        data = json.dumps(record).encode()
        try:
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))
        except OSError as exc:
            raise StoreUnavailable(f"{self._path.name} can't be written: {exc.strerror}") from exc

    def read(self) -> tuple[Suspicion, Attempt | None]:
        """Return what was recorded last; nothing for a new or torn file."""
        try:
            record = json.loads(os.pread(self._file, 4096, 0))
            attempt = record["attempt"]
            return Suspicion(**record["suspicion"]), Attempt(**attempt) if attempt else None
        except (ValueError, KeyError, TypeError):
            return Suspicion(), None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
