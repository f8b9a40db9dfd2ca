"""Versions in SQLite, and the parts of their checkpoints by name."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from service.memory import Memory
from service.store.embedded.bell import Bell, ring
from service.store.embedded.database import Database, failing_as_unavailable, sealed
from service.store.embedded.directory import DataDirectory
from service.store.embedded.lineage import lead_to, scrub
from service.store.embedded.parts import SCHEMA as PARTS_SCHEMA, SMALL, Parts, delete_parts
from service.store.embedded.retention import is_kept
from service.store.errors import DataDirectoryError, LearnerRunning
from service.store.protocols import NO_CONTENTS, NO_TRACES, PARTS, Part, Version

# A version's row is the commit point: its parts are durable with it or before, and unreachable without it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS shaping (id INTEGER PRIMARY KEY CHECK (id = 1), settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS versions (
  version INTEGER PRIMARY KEY,
  parent INTEGER,
  updates INTEGER NOT NULL,
  created_at REAL NOT NULL,
  first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  applied_seq INTEGER NOT NULL,
  backlog TEXT NOT NULL,
  act INTEGER,
  steps TEXT NOT NULL,
  weights TEXT NOT NULL,
  held TEXT NOT NULL,
  quarantined TEXT NOT NULL,
  gate TEXT,
  metrics TEXT NOT NULL,
  by_class TEXT,
  environment TEXT NOT NULL,
  reason TEXT NOT NULL,
  frozen TEXT NOT NULL,
  model TEXT NOT NULL,
  learner TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  stored INTEGER NOT NULL,
  superseded INTEGER,
  crc INTEGER
);
CREATE INDEX IF NOT EXISTS versions_seq ON versions (last_seq, version);
CREATE INDEX IF NOT EXISTS versions_span ON versions (last_seq - first_seq);
CREATE INDEX IF NOT EXISTS versions_stored ON versions (version) WHERE stored;
CREATE INDEX IF NOT EXISTS versions_frozen ON versions (frozen) WHERE stored;
CREATE INDEX IF NOT EXISTS versions_model ON versions (model) WHERE stored;
CREATE INDEX IF NOT EXISTS versions_learner ON versions (learner) WHERE stored;
CREATE INDEX IF NOT EXISTS versions_act ON versions (act) WHERE act IS NOT NULL;
CREATE TABLE IF NOT EXISTS traces (version INTEGER PRIMARY KEY, trace TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS gate (id INTEGER PRIMARY KEY CHECK (id = 1), known BLOB NOT NULL);
"""
JSON_COLUMNS = ("backlog", "steps", "weights", "held", "quarantined", "gate", "metrics", "by_class", "environment")
COLUMNS = (
    *("version", "parent", "updates", "created_at", "first_seq", "last_seq", "applied_seq", "act", *JSON_COLUMNS, "reason"),
    *(*PARTS, "sha256", "stored", "superseded"),
)
# What is written once; the rest of a row changes when its checkpoint goes, the served line bends, or an item is forgotten.
WRITTEN = [name for name in COLUMNS if name not in ("stored", "superseded", "by_class", "quarantined")]
KEPT_TRACES = 1000  # of the newest versions: what is served now is one of them
LOCK_PATIENCE = 2.0  # seconds in which a learner that is just stopping may let go


class EmbeddedCheckpointStore:
    """A table of versions, and their parts in another one and in a folder.

    Of the newest `keep` versions each keeps the checkpoint that it has, and of older ones the fewer the older they get: see
    `is_kept`. Of versions that are committed together most have none.
    """

    def __init__(self, directory: DataDirectory, *, keep: int, small: int = SMALL) -> None:
        """`small`: bytes up to which a part is kept in the table of parts."""
        self._directory = directory
        self._keep = keep
        self._database = Database(directory.versions, SCHEMA + PARTS_SCHEMA, synchronous="FULL", timed=directory.timed)
        self._parts = Parts(directory, self._database, small=small)
        self._bell: Bell | None = None

    @contextmanager
    def lead(self, waiting: Callable[[], object] | None = None) -> Iterator[None]:
        """Hold the learner's lock. The kernel lets go of it when the process ends, however it ends."""
        with failing_as_unavailable():
            lock = os.open(self._directory.learner_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with failing_as_unavailable():
                self._lock(lock, waiting)
                os.ftruncate(lock, 0)
                os.pwrite(lock, b"%d" % os.getpid(), 0)
                self._remove_orphans()
            yield
        finally:
            os.close(lock)

    def led(self) -> bool:
        """Return whether a learner holds its lock."""
        with open(self._directory.learner_lock, "a+") as lock:
            try:
                fcntl.flock(lock.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def initialise(self, shaping: Mapping[str, Any], version: Version) -> None:
        """Record the settings that shape learning together with version 0."""
        with self._database.write() as connection:
            connection.execute("INSERT INTO shaping VALUES (1, ?)", (json.dumps(shaping),))
            _insert(connection, version)
        self._directory.begin()
        ring(self._directory.bells, "version")

    def shaping(self) -> dict[str, Any] | None:
        """Return the recorded settings that shape learning."""
        with self._database.read() as connection:
            row = connection.execute("SELECT settings FROM shaping").fetchone()
        settings: dict[str, Any] | None = json.loads(row[0]) if row else None
        return settings

    def put(self, files: Mapping[Part, bytes]) -> dict[Part, str]:
        """Bring the parts of a checkpoint to stable storage, unless they are there already, and whole."""
        named = {part: hashlib.sha256(content).hexdigest() for part, content in files.items()}
        self._parts.put({named[part]: content for part, content in files.items()})
        return named

    def commit(
        self,
        versions: Sequence[Version],
        *,
        gate: bytes,
        contents: Mapping[str, bytes] = NO_CONTENTS,
        forgotten: Collection[int] = (),
        traces: Mapping[int, str] = NO_TRACES,
    ) -> None:
        """Insert the rows, and in the same transaction let go of the checkpoints that are too many, or must go."""
        newest = versions[-1].version
        tainted = self._takers_of(forgotten)
        self._parts.write_files(contents)
        with self._database.write() as connection:
            for version in versions:
                _insert(connection, version)
                lead_to(connection, version)
            connection.execute("INSERT OR REPLACE INTO gate VALUES (1, ?)", (gate,))
            if traces:
                connection.executemany("INSERT OR REPLACE INTO traces VALUES (?, ?)", traces.items())
                connection.execute("DELETE FROM traces WHERE version <= ?", (newest - KEPT_TRACES,))
            released = release(connection, _too_old(connection, newest, self._keep))
            if tainted:
                released += release(connection, _superseded(connection, min(tainted)))
            self._parts.insert(connection, contents)  # after those that go: it takes their places
        self._parts.unlink_inserted(contents)
        ring(self._directory.bells, "version")
        self._parts.unlink(released)  # after the bell: to remove a file takes as long as to sync one

    def erase(self, seqs: Collection[int]) -> None:
        """Take out what rows say of entries, also from the write-ahead log."""
        tainted = self._takers_of(seqs)
        with self._database.write() as connection:
            scrub(connection, tainted, set(seqs))
        self._database.empty_wal()

    def traces(self, after: int, upto: int) -> list[str]:
        """Return the traces of the making of versions."""
        query = "SELECT trace FROM traces WHERE version > ? AND version <= ? ORDER BY version"
        with self._database.read() as connection:
            return [trace for (trace,) in connection.execute(query, (after, upto))]

    def gate(self) -> bytes | None:
        """Return what the gate knew at the last commit."""
        with self._database.read() as connection:
            row = connection.execute("SELECT known FROM gate").fetchone()
        return None if row is None else bytes(row[0])

    def read(self, sha256: str) -> Memory:
        """Return what a part holds, checked."""
        return self._parts.read(sha256)

    def mapped(self, sha256: str) -> Memory:
        """Return what a part holds, checked, without memory of one's own where it is large."""
        return self._parts.mapped(sha256)

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

    def takers(self, seq: int) -> list[Version]:
        """Return the versions that took an entry, newest first."""
        # No update takes more than the widest: that bounds what is looked at, however long the log is.
        covering = (
            "WHERE first_seq <= ? AND last_seq BETWEEN ? AND ? + (SELECT max(last_seq - first_seq) FROM versions)"
            " ORDER BY version DESC"
        )
        return [row for row in self._many(covering, seq, seq, seq) if row.fate(seq)]

    def made_by(self, act: int) -> Version | None:
        """Return the version that carries out an act."""
        return self._one("WHERE act = ? ORDER BY version DESC LIMIT 1", act)

    def wait(self, timeout: float) -> None:
        """Wait for a commit in any process."""
        if self._bell is None:
            with failing_as_unavailable():
                self._bell = Bell(self._directory.bells, "version")
            return  # what was committed before we listened did not ring
        self._bell.wait(timeout)

    def wake(self) -> None:
        """Wake who waits."""
        ring(self._directory.bells, "version")

    def close(self) -> None:
        """Release what is open."""
        if self._bell is not None:
            self._bell.close()
        self._database.close()

    def _takers_of(self, seqs: Collection[int]) -> set[int]:
        return {row.version for seq in seqs for row in self.takers(seq)}

    def _one(self, where: str, *values: int) -> Version | None:
        return next(iter(self._many(where, *values)), None)

    def _many(self, where: str, *values: int) -> list[Version]:
        with self._database.read() as connection:
            query = f"SELECT {', '.join(COLUMNS)}, {sealed(WRITTEN)} FROM versions {where}"
            rows = connection.execute(query, values).fetchall()
        for version, *_, sound in rows:
            if not sound:
                raise self._database.damaged(f"the row of version {version} is not what was written")
        try:
            return [_version(row[:-1]) for row in rows]
        except ValueError as exc:  # in what is not summed
            raise self._database.damaged(f"a row of versions can't be read: {exc}") from exc

    def _lock(self, descriptor: int, waiting: Callable[[], object] | None) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                if waiting is not None:
                    waiting()
                elif time.monotonic() > deadline:
                    holder = self._directory.learner_lock.read_text() or "unknown"
                    raise LearnerRunning(
                        f"another learner (process {holder}) works on the data directory {self._directory.root}"
                    ) from exc
                time.sleep(0.05)
            else:
                return

    def _remove_orphans(self) -> None:
        """Remove parts that a crash left: never committed, or released and not yet removed."""
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT {', '.join(PARTS)} FROM versions WHERE stored").fetchall()
        if rows:
            self._directory.begin()  # where a crash came between
        elif self._directory.begun():
            raise DataDirectoryError(
                f"{self._directory.versions} has no version, and there were some: put a copy of it back,"
                " or make a directory that learns the log anew with `everlearn fork`"
            )
        self._parts.remove_orphans({sha256 for row in rows for sha256 in row})


def _insert(connection: sqlite3.Connection, version: Version) -> None:
    values = [getattr(version, name) if name not in PARTS else version.parts[name] for name in COLUMNS]
    row = [
        json.dumps(value, default=dict) if name in JSON_COLUMNS and value is not None else value
        for name, value in zip(COLUMNS, values, strict=True)
    ]
    connection.execute(f"INSERT INTO versions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", row)
    connection.execute(f"UPDATE versions SET crc = crc32({', '.join(WRITTEN)}) WHERE version = ?", (version.version,))


def _too_old(connection: sqlite3.Connection, newest: int, keep: int) -> list[int]:
    """Return the versions whose checkpoint is not kept any more.

    Only those that are stored are looked at: of these there are at most `keep`, and one for each doubling of the age.
    """
    old = connection.execute("SELECT version FROM versions WHERE stored AND version <= ?", (newest - keep,))
    return [version for (version,) in old if not is_kept(version, newest=newest, keep=keep)]


def _superseded(connection: sqlite3.Connection, first: int) -> list[int]:
    """Return the versions from one on that the served line has left."""
    left = "SELECT version FROM versions WHERE stored AND version >= max(?, 1) AND superseded IS NOT NULL"
    return [version for (version,) in connection.execute(left, (first,))]


def release(connection: sqlite3.Connection, versions: Sequence[int]) -> list[str]:
    """Let go of checkpoints; return their parts that no stored version names, of which only files are left."""
    parts: set[str] = set()
    for version in versions:
        parts.update(connection.execute(f"SELECT {', '.join(PARTS)} FROM versions WHERE version = ?", (version,)).fetchone())
        connection.execute("UPDATE versions SET stored = 0, by_class = NULL WHERE version = ?", (version,))
    released = [sha256 for sha256 in parts if not _is_named(connection, sha256)]
    delete_parts(connection, released)
    return released


def _is_named(connection: sqlite3.Connection, sha256: str) -> bool:
    """Say whether a stored version needs a part. One look into each index: an OR would read every stored row."""
    named = (f"SELECT 1 FROM versions WHERE stored AND {part} = ? LIMIT 1" for part in PARTS)
    return any(connection.execute(query, (sha256,)).fetchone() for query in named)


def _version(row: tuple[Any, ...]) -> Version:
    fields = dict(zip(COLUMNS, row, strict=True))
    for name in JSON_COLUMNS:
        fields[name] = json.loads(fields[name]) if fields[name] is not None else None
    for name in ("weights", "quarantined"):
        fields[name] = {int(seq): value for seq, value in fields[name].items()}
    fields["backlog"] = tuple((first, last) for first, last in fields["backlog"])
    fields["held"] = tuple(fields["held"])
    fields["stored"] = bool(fields["stored"])
    return Version(parts={part: fields.pop(part) for part in PARTS}, **fields)
