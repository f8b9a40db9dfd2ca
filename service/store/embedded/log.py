"""The feedback log in SQLite, with group commit."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.store.embedded.bell import Bell, ring
from service.store.embedded.copying import copy_database, made_whole
from service.store.embedded.database import Database, failing_as_unavailable, in_parts, marks, row_sums, sealed
from service.store.embedded.directory import DataDirectory
from service.store.embedded.tail import WRITTEN, OwnedKey, Tail, owned, tombstone_key
from service.store.errors import KeyBusy, LogBusy, StoreUnavailable
from service.store.protocols import ActKind, Entry, EntryKind, NewEntry

# AUTOINCREMENT: a sequence number is never given twice, even when the newest entries were deleted.
# Traces have a table of their own: an everlearn that knows of none opens the directory as well.
SCHEMA = """
CREATE TABLE IF NOT EXISTS feedback (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  instance BLOB NOT NULL,
  label TEXT NOT NULL,
  weight REAL NOT NULL,
  key TEXT,
  source TEXT,
  digest BLOB NOT NULL,
  prediction_id TEXT,
  predicted_by INTEGER,
  answer TEXT,
  replaces INTEGER,
  received_at REAL NOT NULL,
  crc INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS feedback_owned_key
  ON feedback (kind, key, CASE kind WHEN 'class' THEN '' ELSE coalesce(source, '') END) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS feedback_prediction ON feedback (prediction_id, seq) WHERE prediction_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS feedback_source ON feedback (source, seq) WHERE source IS NOT NULL;
CREATE INDEX IF NOT EXISTS feedback_act ON feedback (kind, seq) WHERE kind IN ('rollback', 'forget', 'release');
CREATE TABLE IF NOT EXISTS traces (seq INTEGER PRIMARY KEY, trace TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), value BLOB NOT NULL);
INSERT OR IGNORE INTO secret VALUES (1, randomblob(32));
CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, at REAL NOT NULL);
"""
SEALED = sealed(WRITTEN)
READ = f"SELECT {', '.join(Entry._fields)}, digest, crc FROM feedback"
INSTANCE = Entry._fields.index("instance")
DIGEST = 1 + WRITTEN.index("digest")  # where it would be among what is read, behind the sequence number
SEAL = f"crc32({', '.join(WRITTEN)})"

# The key of feedback stays as a keyed hash: a client that sends it once more is answered as before, and not learned from. That
# of a class goes: its name may be given again, and is nobody's key.
TOMBSTONE = (
    "UPDATE feedback SET kind = 'forgotten', instance = x'', label = 'null', weight = 0, key = ?, digest = x'',"
    " prediction_id = NULL, predicted_by = NULL, answer = NULL, replaces = NULL WHERE seq = ? AND kind IN ('feedback', 'class')"
)

MAX_WAITING_BYTES = 256 * 1024 * 1024  # of entries that wait for the writer
READ_BYTES = 64 * 1024 * 1024  # of instances that one read returns, so that pictures don't fill the memory


@dataclass(slots=True)
class _Append:
    entries: Sequence[NewEntry]
    keys: set[OwnedKey]
    size: int  # in bytes
    future: Future[list[int]] = field(default_factory=Future)
    began: float = field(default_factory=time.perf_counter)


class EmbeddedFeedbackLog:
    """One SQLite table; one writer thread per process commits what many requests bring in one transaction."""

    def __init__(self, directory: DataDirectory) -> None:
        self._bells = directory.bells
        self._timed = directory.timed
        self._database = Database(directory.log, SCHEMA, synchronous="FULL", timed=directory.timed)
        self._bell: Bell | None = None
        self._waiting: list[_Append] = []
        self._waiting_bytes = 0
        self._keys: set[OwnedKey] = set()  # of the appends that wait or are being written
        self._changed = threading.Condition()
        self._end = 0  # as far as it is known
        self._looked = -math.inf  # for what others append, on the monotonic clock
        self._closed = False
        self._writer: threading.Thread | None = None

    def append(self, entries: Sequence[NewEntry]) -> Future[list[int]]:
        """Append all entries or none; see FeedbackLog."""
        append = _Append(entries, _keys(entries), sum(len(entry.instance or b"") + len(entry.label) for entry in entries))
        append.future.set_running_or_notify_cancel()  # it is written, whether or not somebody still waits for it
        with self._changed:
            if self._closed:
                raise StoreUnavailable("the log is closed")
            if self._waiting and self._waiting_bytes + append.size > MAX_WAITING_BYTES:
                raise LogBusy
            if busy := append.keys & self._keys:
                raise KeyBusy(
                    next(index for index, entry in enumerate(entries) if entry.key is not None and owned(entry) in busy)
                )
            self._keys |= append.keys
            self._waiting.append(append)
            self._waiting_bytes += append.size
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_loop, name="feedback-log", daemon=True)
                self._writer.start()
            self._changed.notify()
        return append.future

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return at most `limit` entries after a sequence number, and not many more bytes than READ_BYTES."""
        query = f"{READ} WHERE seq > ? ORDER BY seq LIMIT ?"
        rows: list[tuple[Any, ...]] = []
        size = 0
        with self._database.read() as connection:
            for row in connection.execute(query, (after, limit)):
                rows.append(row)
                size += len(row[INSTANCE])
                if size > READ_BYTES:
                    break
        return self._entries(rows)

    def fetch(self, seqs: Sequence[int]) -> dict[int, Entry]:
        """Return the entries with these sequence numbers."""
        with self._database.read() as connection:
            rows = [
                row
                for some in in_parts(list(set(seqs)))
                for row in connection.execute(f"{READ} WHERE seq IN {marks(some)}", some)
            ]
        return {entry.seq: entry for entry in self._entries(rows)}

    def kinds(self, seqs: Sequence[int]) -> dict[int, EntryKind]:
        """Return what the entries with these sequence numbers bring."""
        with self._database.read() as connection:
            rows = (connection.execute("SELECT seq, kind FROM feedback WHERE seq = ?", (seq,)).fetchone() for seq in set(seqs))
            return dict(row for row in rows if row is not None)

    def find(self, kind: EntryKind, key: str) -> list[int]:
        """Return the sequence numbers of the entries with this key."""
        query = "SELECT seq FROM feedback WHERE kind = ? AND key = ? ORDER BY seq"
        with self._database.read() as connection:
            return [seq for (seq,) in connection.execute(query, (kind, key))]

    def acts(self, kind: ActKind) -> list[Entry]:
        """Return all acts of a kind."""
        query = f"{READ} WHERE kind IN ('rollback', 'forget', 'release') AND kind = ? ORDER BY seq"
        with self._database.read() as connection:
            rows = connection.execute(query, (kind,)).fetchall()
        return self._entries(rows)

    def brought_by(self, source: str, before: int) -> list[int]:
        """Return what a source has brought."""
        query = "SELECT seq FROM feedback WHERE source = ? AND seq < ? AND kind IN ('feedback', 'class') ORDER BY seq"
        with self._database.read() as connection:
            return [seq for (seq,) in connection.execute(query, (source, before))]

    def has_brought(self, source: str) -> bool:
        """Return whether a source has brought anything, be it forgotten since."""
        query = "SELECT 1 FROM feedback WHERE source = ? AND kind IN ('feedback', 'class', 'forgotten') LIMIT 1"
        with self._database.read() as connection:
            return connection.execute(query, (source,)).fetchone() is not None

    def erase(self, seqs: Sequence[int]) -> None:
        """Leave tombstones, also in the write-ahead log: place and time, and a keyed hash by which a retry is known."""
        secret = self.secret()
        with self._database.write() as connection:
            for seq in seqs:
                for kind, key in connection.execute("SELECT kind, key FROM feedback WHERE seq = ?", (seq,)).fetchall():
                    kept = tombstone_key(secret, key) if kind == "feedback" and key is not None else None
                    connection.execute(TOMBSTONE, (kept, seq))
                    connection.execute(f"UPDATE feedback SET crc = {SEAL} WHERE seq = ?", (seq,))
                    connection.execute("DELETE FROM traces WHERE seq = ?", (seq,))
        self._database.empty_wal()

    def traces(self, seqs: Sequence[int]) -> list[str]:
        """Return the traces of the requests that brought these entries."""
        with self._database.read() as connection:
            rows = (connection.execute("SELECT trace FROM traces WHERE seq = ?", (seq,)).fetchone() for seq in seqs)
            return list(dict.fromkeys(row[0] for row in rows if row is not None))

    def secret(self) -> bytes:
        """Return the log's own random bytes."""
        with self._database.read() as connection:
            return bytes(connection.execute("SELECT value FROM secret").fetchone()[0])

    def end(self, within: float = 0.0) -> int:
        """Return the last sequence number, 0 for an empty log; see FeedbackLog."""
        now = time.monotonic()
        if now - self._looked >= within:
            with self._database.read() as connection:
                self._reach(int(connection.execute("SELECT coalesce(max(seq), 0) FROM feedback").fetchone()[0]))
            self._looked = now
        return self._end

    def wait(self, timeout: float) -> None:
        """Wait for an append in any process."""
        if self._bell is None:
            with failing_as_unavailable():
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

    def _entries(self, rows: Sequence[tuple[Any, ...]]) -> list[Entry]:
        """Return the entries of rows that were read. Raises DataDirectoryError where one is not what was written."""
        if not rows:
            return []
        # Summed here and not in SQL: SQLite would call back, and take turns with the other threads, for each row.
        *columns, digests, written = zip(*rows, strict=True)
        for row, sum_, found in zip(rows, written, row_sums([*columns[1:DIGEST], digests, *columns[DIGEST:]]), strict=True):
            if sum_ not in (None, found):
                raise self._database.damaged(f"seq {row[0]} is not what was written")
        return [Entry._make(row[:-2]) for row in rows]

    def _write_loop(self) -> None:
        while appends := self._take():
            results = self._commit(appends)
            with self._changed:
                for append in appends:
                    self._keys -= append.keys
            for append, result in zip(appends, results, strict=True):
                if isinstance(result, Exception):
                    append.future.set_exception(result)
                else:
                    append.future.set_result(result)
                    self._timed("append", "feedback", time.perf_counter() - append.began)
            ring(self._bells, "feedback")

    def _take(self) -> list[_Append]:
        """Return everything that waits; empty only when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            appends, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return appends

    def _commit(self, appends: Sequence[_Append]) -> Sequence[list[int] | Exception]:
        try:
            with self._database.write() as connection:
                tail = Tail(connection)
                results = [tail.append(append.entries) for append in appends]
                last = tail.write()
        except Exception as exc:  # noqa: BLE001  # without this thread nobody would ever be answered again
            return [exc] * len(appends)
        self._reach(last)
        return results

    def _reach(self, seq: int) -> None:
        with self._changed:
            self._end = max(self._end, seq)


def fork(data: Path, to: Path) -> int:
    """Make a data directory with a copy of another one's log, whole also while that is written; return its items.

    The answers that were served stay behind: they are another model's. Raises DataDirectoryError where there is
    something already, StoreUnavailable; then nothing is made.
    """
    source = DataDirectory(data).open()
    with made_whole(to, last=source.marker.name) as folder:
        log = DataDirectory(folder).create().log
        copy_database(source.log, log)
        database = Database(log, SCHEMA, synchronous="FULL")
        try:
            with database.write() as connection:
                connection.execute(f"UPDATE feedback SET answer = NULL, predicted_by = NULL, crc = NULL WHERE {SEALED}")
                connection.execute(f"UPDATE feedback SET crc = {SEAL} WHERE crc IS NULL")
                connection.execute("DELETE FROM traces")
                return int(connection.execute("SELECT count(*) FROM feedback").fetchone()[0])
        finally:
            database.close()


def _keys(entries: Sequence[NewEntry]) -> set[OwnedKey]:
    return {owned(entry) for entry in entries if entry.key is not None}
