"""Versions in SQLite, their checkpoints as files named by content."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.store.embedded.bell import Bell, ring
from service.store.embedded.database import Database
from service.store.embedded.directory import DataDirectory, write_durably
from service.store.errors import CorruptCheckpoint, LearnerRunning
from service.store.protocols import PARTS, Version

# A version's row is the commit point: its files are durable before it, and unreachable without it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS shaping (id INTEGER PRIMARY KEY CHECK (id = 1), settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS versions (
  version INTEGER PRIMARY KEY,
  parent INTEGER,
  created_at REAL NOT NULL,
  first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  steps TEXT NOT NULL,
  quarantined TEXT NOT NULL,
  metrics TEXT NOT NULL,
  by_class TEXT,
  environment TEXT NOT NULL,
  reason TEXT NOT NULL,
  frozen TEXT NOT NULL,
  model TEXT NOT NULL,
  learner TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  stored INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS versions_seq ON versions (last_seq, version);
CREATE INDEX IF NOT EXISTS versions_stored ON versions (version) WHERE stored;
"""
JSON_COLUMNS = ("steps", "quarantined", "metrics", "by_class", "environment")
COLUMNS = (
    *("version", "parent", "created_at", "first_seq", "last_seq", *JSON_COLUMNS, "reason", *PARTS),
    *("sha256", "stored"),
)
LOCK_PATIENCE = 2.0  # seconds in which a learner that is just stopping may let go


class EmbeddedCheckpointStore:
    """One SQLite table and one folder. The newest `keep` checkpoints and version 0 are kept."""

    def __init__(self, directory: DataDirectory, *, keep: int) -> None:
        self._directory = directory
        self._keep = keep
        self._database = Database(directory.versions, SCHEMA, synchronous="FULL")
        self._bell: Bell | None = None

    @contextmanager
    def lead(self) -> Iterator[None]:
        """Hold the learner's lock. The kernel lets go of it when the process ends, however it ends."""
        with open(self._directory.learner_lock, "a+") as lock:
            self._lock(lock.fileno())
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self._remove_orphans()
            yield

    def initialise(self, shaping: Mapping[str, Any], version: Version) -> None:
        """Record the settings that shape learning together with version 0."""
        with self._database.write() as connection:
            connection.execute("INSERT INTO shaping VALUES (1, ?)", (json.dumps(shaping),))
            _insert(connection, version)
        ring(self._directory.bells, "version")

    def shaping(self) -> dict[str, Any] | None:
        """Return the recorded settings that shape learning."""
        with self._database.read() as connection:
            row = connection.execute("SELECT settings FROM shaping").fetchone()
        settings: dict[str, Any] | None = json.loads(row[0]) if row else None
        return settings

    def put(self, data: bytes) -> str:
        """Write a file named by its content, unless it is there already."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._file(sha256)
        if not path.exists():
            write_durably(path, data)
        return sha256

    def commit(self, version: Version) -> None:
        """Insert the row, and in the same transaction let go of those that are too many."""
        with self._database.write() as connection:
            _insert(connection, version)
            released = _release(connection, version.version - self._keep)
        for sha256 in released:
            self._file(sha256).unlink(missing_ok=True)
        ring(self._directory.bells, "version")

    def path(self, sha256: str) -> Path:
        """Return the file, after reading it all once to check its content."""
        path = self._file(sha256)
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            raise CorruptCheckpoint(f"the checkpoint file {path.name} can't be read: {exc.strerror}") from exc
        if found != sha256:
            raise CorruptCheckpoint(f"the checkpoint file {path.name} holds content with SHA-256 {found}")
        return path

    def latest(self) -> Version | None:
        """Return the newest version."""
        return self._one("ORDER BY version DESC LIMIT 1")

    def get(self, version: int) -> Version | None:
        """Return a version."""
        return self._one("WHERE version = ?", version)

    def page(self, before: int | None, limit: int) -> list[Version]:
        """Return versions, newest first."""
        return self._many("WHERE version < ? ORDER BY version DESC LIMIT ?", 2**62 if before is None else before, limit)

    def following(self, version: int, limit: int) -> list[Version]:
        """Return versions after one, oldest first."""
        return self._many("WHERE version > ? ORDER BY version LIMIT ?", version, limit)

    def consumer_of(self, seq: int) -> Version | None:
        """Return the version whose update consumed a sequence number."""
        return self._one("WHERE last_seq >= ? AND first_seq <= ? ORDER BY last_seq, version LIMIT 1", seq, seq)

    def wait(self, timeout: float) -> None:
        """Wait for a commit in any process."""
        if self._bell is None:
            self._bell = Bell(self._directory.bells, "version")
            return  # what was committed before we listened did not ring
        self._bell.wait(timeout)

    def close(self) -> None:
        """Release what is open."""
        if self._bell is not None:
            self._bell.close()
        self._database.close()

    def _file(self, sha256: str) -> Path:
        return self._directory.checkpoints / f"{sha256}.safetensors"

    def _one(self, where: str, *values: int) -> Version | None:
        return next(iter(self._many(where, *values)), None)

    def _many(self, where: str, *values: int) -> list[Version]:
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM versions {where}", values).fetchall()
        return [_version(row) for row in rows]

    def _lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    holder = self._directory.learner_lock.read_text() or "unknown"
                    raise LearnerRunning(
                        f"another learner (process {holder}) works on the data directory {self._directory.root}"
                    ) from exc
                time.sleep(0.05)
            else:
                return

    def _remove_orphans(self) -> None:
        """Remove files that a crash left: never committed, or released and not yet unlinked."""
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT {', '.join(PARTS)} FROM versions WHERE stored").fetchall()
        named = {self._file(sha256) for row in rows for sha256 in row}
        for path in self._directory.checkpoints.iterdir():
            if path not in named:
                path.unlink()


def _insert(connection: sqlite3.Connection, version: Version) -> None:
    values = [getattr(version, name) if name not in PARTS else version.parts[name] for name in COLUMNS]
    row = [
        json.dumps(value) if name in JSON_COLUMNS and value is not None else value
        for name, value in zip(COLUMNS, values, strict=True)
    ]
    connection.execute(f"INSERT INTO versions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", row)


def _release(connection: sqlite3.Connection, newest: int) -> list[str]:
    """Let go of the checkpoints up to a version, but for version 0; return the files that no stored version names."""
    released = f"SELECT {', '.join(PARTS)} FROM versions WHERE stored AND version BETWEEN 1 AND ?"
    files = {sha256 for row in connection.execute(released, (newest,)) for sha256 in row}
    connection.execute("UPDATE versions SET stored = 0, by_class = NULL WHERE stored AND version BETWEEN 1 AND ?", (newest,))
    named = "SELECT 1 FROM versions WHERE stored AND ? IN (frozen, model, learner) LIMIT 1"
    return [sha256 for sha256 in files if connection.execute(named, (sha256,)).fetchone() is None]


def _version(row: tuple[Any, ...]) -> Version:
    fields = dict(zip(COLUMNS, row, strict=True))
    for name in JSON_COLUMNS:
        fields[name] = json.loads(fields[name]) if fields[name] is not None else None
    fields["quarantined"] = {int(seq): reason for seq, reason in fields["quarantined"].items()}
    fields["stored"] = bool(fields["stored"])
    return Version(parts={part: fields.pop(part) for part in PARTS}, **fields)
