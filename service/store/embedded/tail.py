"""The end of the feedback table inside a write transaction: what an append finds there, and what it adds."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, count
from operator import attrgetter
from typing import Any

from service.store.embedded.database import alike, row_sums
from service.store.errors import AppendRefused, KeyReused, MissingInstance
from service.store.protocols import EntryKind, NewEntry

BROUGHT = ("kind", "instance", "label", "weight", "key", "source", "digest", "prediction_id", "predicted_by", "answer")
WRITTEN = (*BROUGHT, "replaces", "received_at")

KEPT_TRACES = 1_000_000  # sequence numbers back: more than may wait for the learner, or many of them are not needed

# One statement inserts many rows. The interpreter's lock is let go of once, not once a row: with a busy event loop beside it, a
# writer waits to have it back each time. What the rows share is bound once: None and bytes take sqlite3 longest of all. Each
# statement has a copy of its rows.
MOST_ROWS = 32
MOST_BYTES = 4 * 1024 * 1024  # of instances, unless one alone has more

OwnedKey = tuple[EntryKind, str, str]
"""What a key is of, whose it is, and the key."""

INSTANCE = WRITTEN.index("instance")

_brought = attrgetter(*BROUGHT)


@dataclass(slots=True)
class _Rows:
    """Rows to be written, and what of them may be asked for before they are."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    keyed: dict[OwnedKey, tuple[int, bytes]] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    traces: list[tuple[int, str]] = field(default_factory=list)

    def extend(self, more: _Rows) -> None:
        """Add what comes after."""
        self.rows += more.rows
        self.keyed |= more.keyed
        self.labelled |= more.labelled
        self.traces += more.traces


class Tail:
    """Takes the appends of one transaction, each wholly or not at all, and writes their rows together in the end."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        given = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'feedback'").fetchone()
        self._end: int = given[0] if given else 0  # the last that was given, be it to an entry that is gone
        self._now = time.time()
        self._taken = _Rows()
        self._new = _Rows()  # of the append at hand

    def append(self, entries: Sequence[NewEntry]) -> list[int] | AppendRefused:
        """Return the sequence numbers of the entries of an append, or why nothing of it is taken."""
        self._new = _Rows()
        try:
            seqs = [self._place(index, entry) for index, entry in enumerate(entries)]
        except AppendRefused as refusal:
            return refusal
        self._taken.extend(self._new)
        return seqs

    def write(self) -> int:
        """Insert what was taken; return the last new sequence number, 0 where there is none."""
        rows, traces = self._taken.rows, self._taken.traces
        if not rows:
            return 0
        last = self._end + len(rows)
        largest = max(len(row[INSTANCE]) for row in rows)
        size = max(1, min(MOST_ROWS, MOST_BYTES // max(1, largest)))
        for start in range(0, len(rows), size):
            self._insert(self._end + 1 + start, rows[start : start + size])
        if traces:
            self._connection.executemany("INSERT OR REPLACE INTO traces VALUES (?, ?)", traces)
            self._connection.execute("DELETE FROM traces WHERE seq <= ?", (last - KEPT_TRACES,))
        return last

    def _insert(self, first: int, rows: Sequence[tuple[Any, ...]]) -> None:
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        columns = [range(first, first + len(rows)), *columns, row_sums(columns)]
        shared = tuple(map(alike, columns))
        once = [column[0] for column, is_shared in zip(columns, shared, strict=True) if is_shared]
        each = zip(*(column for column, is_shared in zip(columns, shared, strict=True) if not is_shared), strict=True)
        self._connection.execute(_insertion(len(rows), shared), [*once, *chain.from_iterable(each)])

    def _place(self, index: int, entry: NewEntry) -> int:
        """Return the sequence number of an entry: that of an earlier one, or the next, with a row. Raises AppendRefused."""
        if entry.key is not None and (known := self._known(index, entry)) is not None:
            return known
        if entry.instance is None:
            raise MissingInstance(index)
        earlier = None if entry.prediction_id is None else self._label_of(entry.prediction_id)
        if entry.only_first and earlier is not None:
            return earlier
        new = self._new
        new.rows.append((*_brought(entry), earlier, self._now))
        seq = self._end + len(self._taken.rows) + len(new.rows)
        if entry.key is not None:
            new.keyed[owned(entry)] = seq, entry.digest
        if entry.prediction_id is not None:
            new.labelled[entry.prediction_id] = seq
        if entry.trace is not None:
            new.traces.append((seq, entry.trace))
        return seq

    def _known(self, index: int, entry: NewEntry) -> int | None:
        """Return the sequence number that an entry's key has. Raises KeyReused where it came with other content."""
        key = owned(entry)
        known = self._new.keyed.get(key) or self._taken.keyed.get(key) or self._with_key(key)
        if known is not None:
            seq, digest = known
            if digest != entry.digest:
                raise KeyReused(index)
            return seq
        if entry.kind != "feedback":  # a class may be named again after it was forgotten
            return None
        _, owner, name = key
        (secret,) = self._connection.execute("SELECT value FROM secret").fetchone()
        forgotten = self._with_key(("forgotten", owner, tombstone_key(secret, name)))
        return None if forgotten is None else forgotten[0]

    def _with_key(self, key: OwnedKey) -> tuple[int, bytes] | None:
        """Return the sequence number and the digest of what the table has under a key."""
        kind, owner, name = key
        query = "SELECT seq, digest FROM feedback WHERE kind = ? AND key = ? AND (kind = 'class' OR coalesce(source, '') = ?)"
        found: tuple[int, bytes] | None = self._connection.execute(query, (kind, name, owner)).fetchone()
        return found

    def _label_of(self, prediction_id: str) -> int | None:
        """Return the latest label that a prediction has."""
        if waiting := self._new.labelled.get(prediction_id) or self._taken.labelled.get(prediction_id):
            return waiting
        query = "SELECT max(seq) FROM feedback WHERE prediction_id = ?"
        seq: int | None = self._connection.execute(query, (prediction_id,)).fetchone()[0]
        return seq


def owned(entry: NewEntry) -> OwnedKey:
    """Return an entry's key as what one source can't take from another: a class has one name for all."""
    assert entry.key is not None
    return entry.kind, "" if entry.kind == "class" else entry.source or "", entry.key


def tombstone_key(secret: bytes, key: str) -> str:
    """Return what stands for the key of a forgotten entry."""
    return hmac.new(secret, key.encode(), hashlib.sha256).hexdigest()


@lru_cache(512)
def _insertion(rows: int, shared: Sequence[bool]) -> str:
    """Return the statement that inserts so many rows: sequence number, what is WRITTEN, and its sum.

    First come the values that all rows share, then the others of each row.
    """
    columns = ("seq", *WRITTEN, "crc")
    numbers = count(1)
    once = {column: f"?{next(numbers)}" for column, is_shared in zip(columns, shared, strict=True) if is_shared}
    values = [f"({', '.join(once.get(column) or f'?{next(numbers)}' for column in columns)})" for _ in range(rows)]
    return f"INSERT INTO feedback ({', '.join(columns)}) VALUES {', '.join(values)}"
