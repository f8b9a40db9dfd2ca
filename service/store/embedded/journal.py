"""The prediction journal in SQLite, written in the background."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from itertools import takewhile

from service.store.embedded.database import Database, sealed
from service.store.embedded.directory import DataDirectory
from service.store.embedded.rows import insert
from service.store.errors import StoreError
from service.store.protocols import Prediction

log = logging.getLogger(__name__)

# The rowid is the order of time: the oldest rows go first.
SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
  number INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  instance BLOB NOT NULL,
  answer TEXT NOT NULL,
  written_at REAL NOT NULL,
  crc INTEGER
);
CREATE INDEX IF NOT EXISTS predictions_age ON predictions (written_at);
CREATE TABLE IF NOT EXISTS traces (id BLOB PRIMARY KEY, trace TEXT NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS predictions_gone AFTER DELETE ON predictions BEGIN DELETE FROM traces WHERE id = old.id; END;
"""

# One that is damaged is not known: its label comes with the instance then.
WRITTEN = ("id", "version", "instance", "answer", "written_at")
SEALED = sealed(WRITTEN)

MAX_WAITING_BYTES = 64 * 1024 * 1024
FLUSH_SECONDS = 0.02  # a little patience makes one transaction of many small ones
FORGET_ROWS = 1000  # rows that one pass removes at most, so that no transaction is long


class EmbeddedPredictionJournal:
    """One SQLite table without fsync per commit: a power cut may lose the last moments, a killed process does not."""

    def __init__(
        self,
        directory: DataDirectory,
        *,
        max_age: float,
        max_bytes: int,
        on_written: Callable[[int], object] = lambda _: None,
        on_dropped: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._on_written = on_written
        self._on_dropped = on_dropped
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._database = Database(directory.journal, SCHEMA, synchronous="NORMAL", timed=directory.timed)
        self._waiting: dict[str, Prediction] = {}
        self._writing: dict[str, Prediction] = {}
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self._writer = threading.Thread(target=self._write_loop, name="prediction-journal", daemon=True)
        self._writer.start()

    def put(self, predictions: Sequence[Prediction]) -> None:
        """Keep predictions, written in the background."""
        size = sum(len(prediction.instance) + len(prediction.answer) for prediction in predictions)
        with self._changed:
            if self._closed or (self._waiting and self._waiting_bytes + size > MAX_WAITING_BYTES):
                self._on_dropped(len(predictions))
                return
            idle = not self._waiting
            self._waiting.update((prediction.id, prediction) for prediction in predictions)
            self._waiting_bytes += size
            if idle:
                self._changed.notify()

    def get(self, ids: Sequence[str]) -> dict[str, Prediction]:
        """Return the known predictions, first from what waits to be written."""
        with self._changed:
            found = {id: self._waiting.get(id) or self._writing.get(id) for id in ids}
        oldest = time.time() - self._max_age
        trace = "(SELECT trace FROM traces WHERE traces.id = predictions.id)"
        query = f"SELECT version, instance, answer, {trace} FROM predictions WHERE id = ? AND written_at >= ? AND {SEALED}"
        known: dict[str, Prediction] = {}
        with self._database.read() as connection:
            for id, prediction in found.items():
                if prediction:
                    known[id] = prediction
                elif row := connection.execute(query, (_key(id), oldest)).fetchone():
                    known[id] = Prediction(id, *row)
        return known

    def older(self, seconds: float, after: int, limit: int) -> tuple[list[Prediction], int]:
        """Return written predictions of at least this age after a place, and the place of the last."""
        query = (
            "SELECT number, written_at, id, version, instance, answer FROM predictions"
            f" WHERE number > ? AND {SEALED} ORDER BY number LIMIT ?"
        )
        latest = time.time() - seconds
        with self._database.read() as connection:
            # Up to the first that is younger: where the clock was set back, none is passed over.
            rows = list(takewhile(lambda row: row[1] <= latest, connection.execute(query, (after, limit))))
        return [Prediction(id.hex(), *rest) for _, _, id, *rest in rows], rows[-1][0] if rows else after

    def erase(self, ids: Sequence[str], instances: Sequence[bytes]) -> None:
        """Remove predictions, also from the write-ahead log. Instances have no index: this reads the whole journal."""
        with self._database.write() as connection:
            connection.executemany("DELETE FROM predictions WHERE id = ?", ((_key(id),) for id in ids))
            connection.execute("CREATE TEMP TABLE erased (instance BLOB PRIMARY KEY)")
            connection.executemany("INSERT OR IGNORE INTO erased VALUES (?)", ((instance,) for instance in instances))
            connection.execute("DELETE FROM predictions WHERE instance IN (SELECT instance FROM erased)")
            connection.execute("DROP TABLE erased")
        self._database.empty_wal()

    def close(self) -> None:
        """Write what waits and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._writer.join()
        self._database.close()

    def _write_loop(self) -> None:
        while self._take():
            try:
                with self._database.write() as connection:
                    self._write(connection)
                    self._forget(connection)
                self._on_written(len(self._writing))
            except StoreError as exc:
                # The journal is a convenience, the log is the promise: predictions go on without it.
                self._on_dropped(len(self._writing))
                log.warning("journal.dropped: %s", exc, extra={"predictions": len(self._writing)})

    def _take(self) -> bool:
        """Move what waits to `_writing`, where `get` still finds it; False when closed and nothing waits."""
        with self._changed:
            self._writing = {}
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._closed:
                self._changed.wait_for(lambda: self._closed, timeout=FLUSH_SECONDS)
            self._writing, self._waiting, self._waiting_bytes = self._waiting, {}, 0
            return bool(self._writing)

    def _write(self, connection: sqlite3.Connection) -> None:
        now = time.time()
        rows = [(_key(p.id), p.version, p.instance, p.answer, now) for p in self._writing.values()]
        insert(connection, "INSERT OR IGNORE INTO predictions", WRITTEN, rows, bulk="instance")
        traced = [(_key(p.id), p.trace) for p in self._writing.values() if p.trace is not None]
        connection.executemany("INSERT OR IGNORE INTO traces VALUES (?, ?)", traced)

    def _forget(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "DELETE FROM predictions WHERE number IN (SELECT number FROM predictions WHERE written_at < ? LIMIT ?)",
            (time.time() - self._max_age, FORGET_ROWS),
        )
        if self._used_bytes(connection) > self._max_bytes:
            rows = max(FORGET_ROWS, 2 * len(self._writing))
            connection.execute(
                "DELETE FROM predictions WHERE number IN (SELECT number FROM predictions ORDER BY number LIMIT ?)", (rows,)
            )

    def _used_bytes(self, connection: sqlite3.Connection) -> int:
        """Return the bytes of pages in use: what a count of rows would say, without reading them."""
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def _key(id: str) -> bytes:
    """Return the key of an id; one that was never given out finds nothing."""
    try:
        return bytes.fromhex(id)
    except ValueError:
        return b""
