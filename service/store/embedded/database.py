"""SQLite connections: one per thread, in WAL mode, with errors as StoreUnavailable."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from service.store.errors import DataDirectoryError, StoreUnavailable

BUSY_SECONDS = 10.0
DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class Database:
    """A SQLite file that many threads and processes use. Raises DataDirectoryError where it is damaged."""

    def __init__(self, path: Path, schema: str, *, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self._path = path
        self._synchronous = synchronous
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        with failing_as_unavailable():
            try:
                self.connection().executescript(schema)
            except sqlite3.DatabaseError as exc:
                if exc.sqlite_errorcode & 0xFF in DAMAGED:
                    raise DataDirectoryError(f"{path} is damaged ({exc}): put a copy of it back") from exc
                raise

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection; transactions are explicit."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            # WAL: readers never wait for the writer. FULL: a commit returns after its fsync, NORMAL: it does not wait.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._local.connection = connection
            self._all.append(connection)
        return connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for reading."""
        with failing_as_unavailable():
            yield self.connection()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a connection inside one write transaction: committed at the end, rolled back on any error."""
        with failing_as_unavailable():
            connection = self.connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close every connection; no other thread may use one any more."""
        for connection in self._all:
            connection.close()
        self._all.clear()


@contextmanager
def failing_as_unavailable() -> Iterator[None]:
    """Turn SQLite's errors into StoreUnavailable."""
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreUnavailable(str(exc)) from exc
