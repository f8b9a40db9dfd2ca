"""The parts of checkpoints, named by content: small ones in the database beside the versions, large ones as files."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from mmap import ACCESS_COPY, mmap
from pathlib import Path

from service.memory import Memory, memory
from service.store.embedded.copying import CHUNK, sha256_of
from service.store.embedded.database import Database, failing_as_unavailable
from service.store.embedded.directory import DataDirectory, put_in_place, sync_directory
from service.store.errors import CorruptCheckpoint

SCHEMA = "CREATE TABLE IF NOT EXISTS parts (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL);"
# Bytes of a part that goes to the disk with its version's row, in the one sync of that transaction; a file takes one of its
# own, and one of its folder. SQLite writes all twice: from about twice as much on that costs what a sync does.
SMALL = 256 * 1024


class Parts:
    """The parts that a data directory holds."""

    def __init__(self, directory: DataDirectory, database: Database, *, small: int = SMALL) -> None:
        """`database` holds those of up to `small` bytes."""
        self._directory = directory
        self._database = database
        self._small = small

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Bring parts to stable storage, whatever is there under their names."""
        self.write_files(contents)
        with self._database.write() as connection:
            self.insert(connection, contents)
        self.unlink_inserted(contents)

    def write_files(self, contents: Mapping[str, bytes]) -> None:
        """Bring the large ones of these parts to stable storage, before the transaction that names them."""
        large = {sha256: content for sha256, content in contents.items() if not self._is_small(content)}
        for sha256, content in large.items():
            self._write_file(self._directory.checkpoint(sha256), sha256, content)
        if large:
            with failing_as_unavailable():  # also where no file is new: maybe a try before failed just here
                sync_directory(self._directory.checkpoints)

    def insert(self, connection: sqlite3.Connection, contents: Mapping[str, bytes]) -> None:
        """Insert the small ones of these parts, unless they are there already, and whole."""
        connection.executemany(
            "INSERT INTO parts VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET content = excluded.content WHERE content IS NOT excluded.content",
            ((sha256, content) for sha256, content in contents.items() if self._is_small(content)),
        )

    def read(self, sha256: str) -> Memory:
        """Return what a part holds, checked. Raises CorruptCheckpoint."""
        inserted = self._inserted(sha256)
        return _read(self._directory.checkpoint(sha256), sha256) if inserted is None else _whole(inserted, sha256)

    def mapped(self, sha256: str) -> Memory:
        """Return what a part holds, checked; a file's bytes in memory that processes share. Raises CorruptCheckpoint."""
        if (inserted := self._inserted(sha256)) is not None:
            return _whole(inserted, sha256)
        with _failing_as_corrupt(sha256):
            path = self._directory.checkpoint(sha256)
            # Read before it is mapped: of what can't be read a mapping tells by a signal.
            with open(path, "rb") as file:
                _check(sha256, hashlib.file_digest(file, "sha256"))
                return mmap(file.fileno(), 0, access=ACCESS_COPY)  # torch wants memory that could be written to

    def unlink(self, sha256s: Iterable[str]) -> None:
        """Remove the files of parts. What stays is removed as an orphan."""
        for sha256 in sha256s:
            with suppress(OSError):
                self._directory.checkpoint(sha256).unlink(missing_ok=True)

    def unlink_inserted(self, contents: Mapping[str, bytes]) -> None:
        """Remove the files that were put beside those of these parts that are inserted now: they would come before them."""
        self.unlink(sha256 for sha256, content in contents.items() if self._is_small(content))

    def remove_orphans(self, named: Collection[str]) -> None:
        """Remove all but the parts with these names: what a crash left."""
        files = {self._directory.checkpoint(sha256) for sha256 in named}
        for path in self._directory.checkpoints.iterdir():
            if path not in files:
                path.unlink()
        with self._database.read() as connection:
            inserted = [sha256 for (sha256,) in connection.execute("SELECT sha256 FROM parts")]
        if orphans := [sha256 for sha256 in inserted if sha256 not in named]:
            with self._database.write() as connection:
                delete_parts(connection, orphans)

    def _inserted(self, sha256: str) -> bytes | None:
        """Return what the database holds of a part, unless a file was put beside it, to mend it."""
        if self._directory.checkpoint(sha256).exists():
            return None
        with self._database.read() as connection:
            return inserted_part(connection, sha256)

    def _is_small(self, content: bytes) -> bool:
        return len(content) <= self._small

    def _write_file(self, path: Path, sha256: str, content: bytes) -> None:
        if not path.exists() or sha256_of(path) != sha256:
            began = time.perf_counter()
            put_in_place(path, content, synced=partial(self._directory.timed, "fsync", "checkpoints"))
            self._directory.timed("write", "checkpoints", time.perf_counter() - began)


def inserted_part(connection: sqlite3.Connection, sha256: str) -> bytes | None:
    """Return what the database holds of a part, unchecked; None where it has no such part."""
    # One changed bit makes a text of the blob, or nothing: its sum is to tell, and no error of its type.
    query = "SELECT CAST(coalesce(content, '') AS BLOB) FROM parts WHERE sha256 = ?"
    row: tuple[bytes] | None = connection.execute(query, (sha256,)).fetchone()
    return None if row is None else row[0]


def delete_parts(connection: sqlite3.Connection, sha256s: Iterable[str]) -> None:
    """Delete parts from the database, as far as they are there; their pages are free for what is inserted next."""
    connection.executemany("DELETE FROM parts WHERE sha256 = ?", ((sha256,) for sha256 in sha256s))


def _read(path: Path, sha256: str) -> Memory:
    """Read a file, and sum up what is still in the processor's cache."""
    digest = hashlib.sha256()
    with _failing_as_corrupt(sha256), open(path, "rb", buffering=0) as file:
        content = memory(os.fstat(file.fileno()).st_size)
        left = memoryview(content)
        while size := file.readinto(left[:CHUNK]):
            digest.update(left[:size])
            left = left[size:]
    _check(sha256, digest)
    return content


def _whole(inserted: bytes, sha256: str) -> bytearray:
    """Return a part that is inserted, in memory of the caller's own."""
    _check(sha256, hashlib.sha256(inserted))
    return bytearray(inserted)


def _check(sha256: str, digest: hashlib._Hash) -> None:
    if digest.hexdigest() != sha256:
        raise CorruptCheckpoint(f"the checkpoint part {sha256} holds content with SHA-256 {digest.hexdigest()}")


@contextmanager
def _failing_as_corrupt(sha256: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise CorruptCheckpoint(f"the checkpoint part {sha256} can't be read: {exc.strerror}") from exc
