"""The feedback log in SQLite, with group commit."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.store.embedded.bell import Bell, ring
from service.store.embedded.database import Database
from service.store.embedded.directory import DataDirectory, sync_directory
from service.store.errors import (
    AppendRefused,
    DataDirectoryError,
    KeyBusy,
    KeyReused,
    LogBusy,
    MissingInstance,
    StoreError,
    StoreUnavailable,
)
from service.store.protocols import Entry, EntryKind, NewEntry

# AUTOINCREMENT: a sequence number is never given twice, even when the newest entries were deleted.
SCHEMA = """
CREATE TABLE IF NOT EXISTS feedback (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  instance BLOB NOT NULL,
  label TEXT NOT NULL,
  weight REAL NOT NULL,
  key TEXT,
  digest BLOB NOT NULL,
  prediction_id TEXT,
  predicted_by INTEGER,
  answer TEXT,
  replaces INTEGER,
  received_at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS feedback_key ON feedback (kind, key) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS feedback_prediction ON feedback (prediction_id, seq) WHERE prediction_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, at REAL NOT NULL);
"""
COLUMNS = "seq, kind, instance, label, weight, key, prediction_id, predicted_by, answer, replaces, received_at"

MAX_WAITING_BYTES = 256 * 1024 * 1024  # of entries that wait for the writer
READ_BYTES = 64 * 1024 * 1024  # of instances that one read returns, so that pictures don't fill the memory


@dataclass(slots=True)
class _Append:
    entries: Sequence[NewEntry]
    future: Future[list[int]] = field(default_factory=Future)

    @property
    def size(self) -> int:
        return sum(len(entry.instance or b"") + len(entry.label) for entry in self.entries)


class EmbeddedFeedbackLog:
    """One SQLite table; one writer thread per process commits what many requests bring in one transaction."""

    def __init__(self, directory: DataDirectory) -> None:
        self._bells = directory.bells
        self._database = Database(directory.log, SCHEMA, synchronous="FULL")
        self._bell: Bell | None = None
        self._waiting: list[_Append] = []
        self._waiting_bytes = 0
        self._keys: set[tuple[EntryKind, str]] = set()  # of the appends that wait or are being written
        self._changed = threading.Condition()
        self._closed = False
        self._writer: threading.Thread | None = None

    def append(self, entries: Sequence[NewEntry]) -> Future[list[int]]:
        """Append all entries or none; see FeedbackLog."""
        append = _Append(entries)
        keys = _keys(entries)
        with self._changed:
            if self._closed:
                raise StoreUnavailable("the log is closed")
            if self._waiting and self._waiting_bytes + append.size > MAX_WAITING_BYTES:
                raise LogBusy
            for index, entry in enumerate(entries):
                if (entry.kind, entry.key) in self._keys:
                    raise KeyBusy(index)
            self._keys |= keys
            self._waiting.append(append)
            self._waiting_bytes += append.size
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_loop, name="feedback-log", daemon=True)
                self._writer.start()
            self._changed.notify()
        return append.future

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return at most `limit` entries after a sequence number, and not many more bytes than READ_BYTES."""
        query = f"SELECT {COLUMNS} FROM feedback WHERE seq > ? ORDER BY seq LIMIT ?"
        entries: list[Entry] = []
        size = 0
        with self._database.read() as connection:
            for row in connection.execute(query, (after, limit)):
                entries.append(_entry(row))
                size += len(entries[-1].instance)
                if size > READ_BYTES:
                    break
        return entries

    def fetch(self, seqs: Sequence[int]) -> dict[int, Entry]:
        """Return the entries with these sequence numbers."""
        query = f"SELECT {COLUMNS} FROM feedback WHERE seq = ?"
        with self._database.read() as connection:
            rows = (connection.execute(query, (seq,)).fetchone() for seq in set(seqs))
            return {row[0]: _entry(row) for row in rows if row is not None}

    def find(self, kind: EntryKind, key: str) -> int | None:
        """Return the sequence number of the entry that has this key."""
        with self._database.read() as connection:
            row = connection.execute("SELECT seq FROM feedback WHERE kind = ? AND key = ?", (kind, key)).fetchone()
            return None if row is None else int(row[0])

    def end(self) -> int:
        """Return the last sequence number, 0 for an empty log."""
        with self._database.read() as connection:
            return int(connection.execute("SELECT coalesce(max(seq), 0) FROM feedback").fetchone()[0])

    def wait(self, timeout: float) -> None:
        """Wait for an append in any process."""
        if self._bell is None:
            self._bell = Bell(self._bells, "feedback")
            return  # what was appended before we listened did not ring
        self._bell.wait(timeout)

    def wake(self) -> None:
        """Wake who waits."""
        ring(self._bells, "feedback")

    def check_writable(self) -> None:
        """Write and sync a row. Raises StoreUnavailable."""
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO probe VALUES (1, ?)", (time.time(),))

    def close(self) -> None:
        """Write what waits and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._writer is not None:
            self._writer.join()
        if self._bell is not None:
            self._bell.close()
        self._database.close()

    def _write_loop(self) -> None:
        while appends := self._take():
            results = self._commit(appends)
            with self._changed:
                for append in appends:
                    self._keys -= _keys(append.entries)
            for append, result in zip(appends, results, strict=True):
                if isinstance(result, StoreError):
                    append.future.set_exception(result)
                else:
                    append.future.set_result(result)
            ring(self._bells, "feedback")

    def _take(self) -> list[_Append]:
        """Return everything that waits; empty only when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            appends, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return appends

    def _commit(self, appends: Sequence[_Append]) -> Sequence[list[int] | StoreError]:
        try:
            with self._database.write() as connection:
                return [_insert_all(connection, append.entries) for append in appends]
        except StoreUnavailable as exc:
            return [exc] * len(appends)


def fork(data: Path, to: Path) -> int:
    """Make a data directory with a copy of another one's log, whole also while that is written; return its items.

    The answers that were served stay behind: they are another model's. Raises DataDirectoryError where there is
    something already, StoreUnavailable; then nothing is made.
    """
    source = DataDirectory(data).open()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise DataDirectoryError(f"{to} is there already, and not empty")
    unfinished = to.with_name(f".{to.name}.fork-{os.getpid()}")
    try:
        items = _copy(source, DataDirectory(unfinished).create())
        unfinished.rename(to)  # all of it or nothing
        sync_directory(to.parent)
    except OSError as exc:
        raise StoreUnavailable(f"{to} can't be written: {exc.strerror}") from exc
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return items


def _copy(source: DataDirectory, target: DataDirectory) -> int:
    original, copied = Database(source.log, SCHEMA, synchronous="FULL"), Database(target.log, SCHEMA, synchronous="FULL")
    try:
        with original.read() as old:
            old.backup(copied.connection())
        with copied.write() as new:
            new.execute("UPDATE feedback SET answer = NULL, predicted_by = NULL")
            return int(new.execute("SELECT count(*) FROM feedback").fetchone()[0])
    finally:
        original.close()
        copied.close()


def _insert_all(connection: sqlite3.Connection, entries: Sequence[NewEntry]) -> list[int] | AppendRefused:
    """Insert the entries of one append, or nothing of them."""
    connection.execute("SAVEPOINT append")
    try:
        seqs = [_insert(connection, index, entry) for index, entry in enumerate(entries)]
    except AppendRefused as refusal:
        connection.execute("ROLLBACK TO append")
        return refusal
    finally:
        connection.execute("RELEASE append")
    return seqs


def _insert(connection: sqlite3.Connection, index: int, entry: NewEntry) -> int:
    if entry.key is not None:
        known = connection.execute(
            "SELECT seq, digest FROM feedback WHERE kind = ? AND key = ?", (entry.kind, entry.key)
        ).fetchone()
        if known is not None:
            if known[1] != entry.digest:
                raise KeyReused(index)
            return int(known[0])
    if entry.instance is None:
        raise MissingInstance(index)
    earlier = _label_of(connection, entry.prediction_id)
    if entry.only_first and earlier is not None:
        return earlier
    cursor = connection.execute(
        "INSERT INTO feedback (kind, instance, label, weight, key, digest, prediction_id, predicted_by, answer, replaces,"
        " received_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.kind,
            entry.instance,
            entry.label,
            entry.weight,
            entry.key,
            entry.digest,
            entry.prediction_id,
            entry.predicted_by,
            entry.answer,
            earlier,
            time.time(),
        ),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _label_of(connection: sqlite3.Connection, prediction_id: str | None) -> int | None:
    """Return the latest label that a prediction has."""
    if prediction_id is None:
        return None
    query = "SELECT max(seq) FROM feedback WHERE prediction_id = ?"
    seq: int | None = connection.execute(query, (prediction_id,)).fetchone()[0]
    return seq


def _keys(entries: Sequence[NewEntry]) -> set[tuple[EntryKind, str]]:
    return {(entry.kind, entry.key) for entry in entries if entry.key is not None}


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(**dict(zip(COLUMNS.split(", "), row, strict=True)))
