"""The data directory: its layout, its format version, and durable files in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from service.store.errors import DataDirectoryError, StoreUnavailable

FORMAT = 4


class DataDirectory:
    """A directory that holds one service's log, features, journal and checkpoints."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "feedback.db"
        self.features = root / "features.db"
        self.journal = root / "predictions.db"
        self.versions = root / "versions.db"
        self.checkpoints = root / "checkpoints"
        self.bells = root / "bells"
        self.learner_lock = root / "learner.lock"
        self.suspicion = root / "suspicion.json"
        self._marker = root / "everlearn.json"

    def create(self) -> DataDirectory:
        """Open the directory, made if it is not there yet. Raises DataDirectoryError."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._marker.exists():
                if any(path.name != "lost+found" for path in self.root.iterdir()):
                    raise DataDirectoryError(f"{self.root} is not empty and not an everlearn data directory")
                write_durably(self._marker, json.dumps({"format": FORMAT}).encode())
            self.open()
            self.checkpoints.mkdir(exist_ok=True)
            self.bells.mkdir(exist_ok=True)
            sync_directory(self.root)
        except (OSError, StoreUnavailable) as exc:
            raise DataDirectoryError(f"the data directory {self.root} can't be written: {exc}") from exc
        return self

    def open(self) -> DataDirectory:
        """Open a directory that must be there. Raises DataDirectoryError for an unknown format: it is never guessed at."""
        try:
            found = json.loads(self._marker.read_bytes())["format"]
        except FileNotFoundError as exc:
            raise DataDirectoryError(f"{self.root} is not an everlearn data directory (no everlearn.json)") from exc
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise DataDirectoryError(f"{self._marker} can't be read: {exc}") from exc
        if type(found) is not int or found != FORMAT:
            raise DataDirectoryError(f"{self.root} has format {found!r}; this everlearn reads format {FORMAT} only")
        return self


def write_durably(path: Path, data: bytes) -> None:
    """Put a whole file in place or nothing: temporary file, fsync, rename, fsync of the directory.

    Without the first fsync the rename can reach the disk before the bytes; without the second the rename may not.
    Raises StoreUnavailable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise StoreUnavailable(f"{path.name} can't be written: {exc.strerror}") from exc


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
