"""The data directory: its layout, its format version, and durable files in it."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.store.embedded.formats import FORMAT, UPGRADES
from service.store.errors import DataDirectoryError, LearnerRunning, StoreUnavailable
from service.store.protocols import PARTS, Timed


class DataDirectory:
    """A directory that holds one service's log, features, journal and checkpoints."""

    def __init__(self, root: Path, *, timed: Timed = lambda *_: None) -> None:
        """`timed` is told how long appends, transactions, commits and fsyncs took."""
        self.root = root
        self.timed = timed
        self.log = root / "feedback.db"
        self.features = root / "features.db"
        self.journal = root / "predictions.db"
        self.versions = root / "versions.db"
        self.checkpoints = root / "checkpoints"
        self.bells = root / "bells"
        self.learner_lock = root / "learner.lock"
        self.suspicion = root / "suspicion.json"
        self.audit = root / "audit.jsonl"
        self.marker = root / "everlearn.json"

    def checkpoint(self, sha256: str) -> Path:
        """Return where a checkpoint's file with this content is."""
        return self.checkpoints / f"{sha256}.safetensors"

    def create(self) -> DataDirectory:
        """Open the directory, made if it is not there yet, brought to today's format if it has an earlier one.

        Raises DataDirectoryError, and LearnerRunning where a service of the earlier format works on it.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _one_at_a_time(self.root):
                self._mark()
                self._upgrade()
                self.open()
                self.checkpoints.mkdir(exist_ok=True)
                self.bells.mkdir(exist_ok=True)
                sync_directory(self.root)
        except (OSError, StoreUnavailable) as exc:
            raise DataDirectoryError(f"the data directory {self.root} can't be written: {exc}") from exc
        return self

    def open(self) -> DataDirectory:
        """Open a directory that must be there. Raises DataDirectoryError for another format: it is never guessed at."""
        found = self._format()
        if found in UPGRADES:
            raise DataDirectoryError(f"{self.root} has format {found}: `everlearn serve` brings it to format {FORMAT} first")
        check_format(self.root, found)
        return self

    def begun(self) -> bool:
        """Return whether there ever was a version. Raises DataDirectoryError."""
        # Where an earlier format did not say so, its files do. A first start that was cut off leaves one of each part.
        return "begun" in self._marked() or len(list(self.checkpoints.iterdir())) > len(PARTS)

    def begin(self) -> None:
        """Say for good that there is a version: where there is none any more, it is lost. Raises StoreUnavailable."""
        marked = self._marked()
        if "begun" not in marked:
            write_durably(self.marker, json.dumps({**marked, "begun": True}).encode())

    def _mark(self) -> None:
        if self.marker.exists():
            return
        unfinished = set(self.root.glob(f".{self.marker.name}.*"))  # a start was cut off here
        if any(path.name != "lost+found" and path not in unfinished for path in self.root.iterdir()):
            raise DataDirectoryError(f"{self.root} is not empty and not an everlearn data directory")
        for path in unfinished:
            path.unlink()
        write_durably(self.marker, json.dumps({"format": FORMAT}).encode())

    def _format(self) -> object:
        found = self._marked()["format"]
        return found if type(found) is int else str(found)

    def _marked(self) -> dict[str, object]:
        """Return what the directory says of itself. Raises DataDirectoryError."""
        try:
            marked = json.loads(self.marker.read_bytes())
            return {**marked, "format": marked["format"]}
        except FileNotFoundError as exc:
            raise DataDirectoryError(f"{self.root} is not an everlearn data directory (no everlearn.json)") from exc
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise DataDirectoryError(f"{self.marker} can't be read: {exc}") from exc

    def _upgrade(self) -> None:
        """Bring it to today's format. The marker comes last: what a crash cuts off is done once more."""
        if self._format() not in UPGRADES:
            return
        with open(self.learner_lock, "a+") as lock:
            try:
                fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise LearnerRunning(f"a service of an earlier everlearn works on the data directory {self.root}") from exc
            while isinstance(found := self._format(), int) and found in UPGRADES:
                try:
                    UPGRADES[found](self.root)
                except sqlite3.Error as exc:
                    raise DataDirectoryError(f"{self.root} can't be brought from format {found} to {found + 1}: {exc}") from exc
                write_durably(self.marker, json.dumps({**self._marked(), "format": found + 1}).encode())


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Let the replicas of a service, which may start at the same moment, do one after the other what they do here."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_format(path: Path, found: object) -> None:
    """Raise DataDirectoryError for a format that is neither today's nor one that can be brought to it."""
    if found != FORMAT and found not in UPGRADES:
        raise DataDirectoryError(f"{path} has format {found!r}; this everlearn reads format {FORMAT} only")


def write_durably(path: Path, data: bytes) -> None:
    """Put a whole file in place or nothing; see `put_in_place`. Raises StoreUnavailable."""
    put_in_place(path, data)
    try:
        sync_directory(path.parent)
    except OSError as exc:
        raise StoreUnavailable(f"{path.name} can't be written: {exc.strerror}") from exc


def put_in_place(path: Path, data: bytes, *, synced: Callable[[float], object] = lambda _: None) -> None:
    """Put a whole file in place or nothing: temporary file, fsync, rename. It stays there once its directory is synced too.

    Without the fsync the rename can reach the disk before the bytes. `synced` is told how many seconds that took.
    Raises StoreUnavailable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
        synced(time.perf_counter() - began)
        os.replace(temporary, path)
    except OSError as exc:
        with suppress(OSError):  # what failed once may fail again
            temporary.unlink(missing_ok=True)
        raise StoreUnavailable(f"{path.name} can't be written: {exc.strerror}") from exc


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
