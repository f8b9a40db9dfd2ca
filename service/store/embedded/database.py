"""SQLite connections: one per thread, in WAL mode, with errors as StoreUnavailable."""

from __future__ import annotations

import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar

from service.store.errors import DataDirectoryError, StoreUnavailable
from service.store.protocols import Timed

T = TypeVar("T")

BUSY_SECONDS = 10.0
BUSY_PAUSE = 0.001
DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
# The statements are always the same: these can only come of a damaged schema, or of text that is none any more.
DAMAGED_WORDS = ("no such column", "no such table", "user-defined function", "decode")
# A file that could not be opened for writing for a moment is read-only to a connection for ever: it is made anew.
STUCK = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)
MOST_ASKED = 256  # values that one statement looks for
WAY_OUT = "put a copy of the data directory back"


class Database:
    """A SQLite file that many threads and processes use. Raises DataDirectoryError where it is damaged."""

    def __init__(
        self, path: Path, schema: str, *, synchronous: Literal["FULL", "NORMAL"], timed: Timed = lambda *_: None
    ) -> None:
        self._path = path
        self._timed = timed
        self._synchronous = synchronous
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        with self._failing():
            self.connection().executescript(schema)
            # Where -shm could not be opened for writing, all of this process's connections are read-only: better no start.
            self.connection().execute("BEGIN IMMEDIATE")
            self.connection().execute("ROLLBACK")

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection; transactions are explicit."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            # WAL: readers never wait for the writer. FULL: a commit returns after its fsync, NORMAL: it does not wait.
            _write_ahead(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            # What is deleted is overwritten too: what is forgotten must be nowhere on the disk.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.create_function("crc32", -1, row_sum, deterministic=True)
            self._local.connection = connection
            self._all.append(connection)
        return connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for reading."""
        with self._failing():
            yield self.connection()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a connection inside one write transaction: committed at the end, rolled back on any error."""
        with self._failing():
            connection = self.connection()
            began = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                committing = time.perf_counter()
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        ended = time.perf_counter()
        self._timed("transaction", self._path.stem, ended - began)
        self._timed("commit", self._path.stem, ended - committing)

    def empty_wal(self) -> None:
        """Bring all into the file itself, and cut the write-ahead log: it holds what rows were before.

        Raises StoreUnavailable where a reader keeps it from being cut.
        """
        with failing_as_unavailable():
            (busy, *_) = self.connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailable(f"the write-ahead log of {self._path.name} is in use")

    def damaged(self, what: str) -> DataDirectoryError:
        """Return the error of a row that is not what was written."""
        in_one_line = " ".join(what.split())  # SQLite may quote a statement
        return DataDirectoryError(f"{self._path} is damaged ({in_one_line}): {WAY_OUT}")

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Tell damage, which stays, from what may be over in a moment."""
        try:
            with failing_as_unavailable():
                yield
        except StoreUnavailable as exc:
            cause = exc.__cause__
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            if code in DAMAGED or any(words in str(cause) for words in DAMAGED_WORDS):
                raise self.damaged(str(cause)) from cause
            if code in STUCK:
                self._forget_connection()
            raise

    def _forget_connection(self) -> None:
        connection: sqlite3.Connection | None = self._local.__dict__.pop("connection", None)
        if connection is not None:
            self._all.remove(connection)
            with suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Close every connection; no other thread may use one any more."""
        for connection in self._all:
            connection.close()
        self._all.clear()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have the file in WAL mode, which it keeps. Of several that open a new one SQLite takes one, and lets no other wait."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE)
        else:
            return


def sealed(columns: Sequence[str]) -> str:
    """Return the SQL that tells whether a row still is what was written: SQLite itself notices damaged pages, not bits.

    A row of an earlier format has no sum, and is believed.
    """
    return f"(crc IS NULL OR crc = crc32({', '.join(columns)}))"


def row_sum(*values: object) -> int:
    """Return the CRC-32 of a row's values, each with its length before it: of what SQLite knows, and of booleans."""
    parts: list[object] = []
    for value in values:  # for every row that is written or read: a plain loop is the fastest
        data = _AS_BYTES[type(value)](value)
        parts += len(data), data
    return zlib.crc32(b"%d%b" * len(values) % tuple(parts))


def alike(column: Sequence[object]) -> bool:
    """Return whether a column says the same in all of its rows, at least one; never of zeros, for -0.0 equals 0.0."""
    return column.count(column[0]) == len(column) and column[0] != 0


def row_sums(columns: Sequence[Sequence[object]]) -> list[int]:
    """Return the `row_sum` of each row of some columns, in half the time: what rows have alike is looked at once."""
    measured = [_measured(column[:1]) * len(column) if alike(column) else _measured(column) for column in columns]
    return list(map(zlib.crc32, map(b"".join, zip(*measured, strict=True))))


def _measured(values: Sequence[object]) -> list[bytes]:
    """Return the bytes of each value with their length before them."""
    data = [_AS_BYTES[type(value)](value) for value in values]
    return [b"%d%b" % (len(each), each) for each in data]


_pack = struct.Struct("d").pack  # a column of floats gives an integer back as a float
_AS_BYTES: Mapping[type, Callable[[Any], bytes]] = {
    bytes: bytes,
    str: str.encode,
    int: _pack,
    float: _pack,
    bool: _pack,
    NoneType: lambda _: b"",
}


def in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut values into parts that one statement each asks for."""
    return (values[start : start + MOST_ASKED] for start in range(0, len(values), MOST_ASKED))


def marks(values: Sequence[object]) -> str:
    """Return the marks of values that something is to be in."""
    return f"({', '.join('?' * len(values))})"


@contextmanager
def failing_as_unavailable() -> Iterator[None]:
    """Turn the errors of SQLite and of the system into StoreUnavailable."""
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreUnavailable(str(exc)) from exc
    except UnicodeDecodeError as exc:  # in a function of ours that SQLite calls
        raise StoreUnavailable("text that can't be decoded") from exc
    except OSError as exc:
        raise StoreUnavailable(f"{exc.strerror}: {exc.filename}" if exc.filename else str(exc)) from exc
