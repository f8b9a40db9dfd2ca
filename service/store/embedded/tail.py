"""The end of the feedback table inside a write transaction: what an append finds there, and what it adds."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from service.store.embedded.database import in_parts, marks
from service.store.embedded.rows import insert
from service.store.errors import AppendRefused, KeyReused, MissingInstance
from service.store.protocols import EntryKind, NewEntry

BROUGHT = ("kind", "instance", "label", "weight", "key", "source", "digest", "prediction_id", "predicted_by", "answer")
WRITTEN = (*BROUGHT, "replaces", "received_at")

KEPT_TRACES = 1_000_000  # sequence numbers back: more than may wait for the learner, or many of them are not needed

OwnedKey = tuple[EntryKind, str, str]
"""What a key is of, whose it is, and the key."""

Keyed = tuple[int, bytes | None]
"""The sequence number that has a key, and the fingerprint of what came under it; None where that was forgotten."""

_brought = attrgetter(*BROUGHT)


@dataclass(slots=True)
class _Rows:
    """Rows to be written, and where the keys and the latest labels of predictions are that entries have to do with."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    keyed: dict[OwnedKey, Keyed] = field(default_factory=dict)
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
        self._end = self._last_given()
        self._now = time.time()
        self._taken = _Rows()
        self._new = _Rows()  # of the append at hand

    def append(self, entries: Sequence[NewEntry]) -> list[int] | AppendRefused:
        """Return the sequence numbers of the entries of an append, or why nothing of it is taken."""
        self._new = _Rows(keyed=self._find_keys(entries), labelled=self._find_labels(entries))
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
        insert(self._connection, "INSERT INTO feedback", WRITTEN, rows, bulk="instance")
        if self._last_given() != last:
            raise sqlite3.IntegrityError(f"the rows before seq {last} did not get the numbers that were due")
        if traces:
            self._connection.executemany("INSERT OR REPLACE INTO traces VALUES (?, ?)", traces)
            self._connection.execute("DELETE FROM traces WHERE seq <= ?", (last - KEPT_TRACES,))
        return last

    def _last_given(self) -> int:
        """Return the last sequence number, be it of an entry that is gone: AUTOINCREMENT goes on from there."""
        given = "(SELECT seq FROM sqlite_sequence WHERE name = 'feedback')", "(SELECT max(seq) FROM feedback)"
        query = f"SELECT max({', '.join(f'coalesce({each}, 0)' for each in given)})"
        seq: int = self._connection.execute(query).fetchone()[0]
        return seq

    def _place(self, index: int, entry: NewEntry) -> int:
        """Return the sequence number of an entry: that of an earlier one, or the next, with a row. Raises AppendRefused."""
        new, taken = self._new, self._taken
        key = None if entry.key is None else owned(entry)
        if key is not None and (known := new.keyed.get(key) or taken.keyed.get(key)):
            seq, digest = known
            if digest not in (None, entry.digest):
                raise KeyReused(index)
            return seq
        if entry.instance is None:
            raise MissingInstance(index)
        id = entry.prediction_id
        earlier = None if id is None else new.labelled.get(id) or taken.labelled.get(id)
        if entry.only_first and earlier is not None:
            return earlier
        new.rows.append((*_brought(entry), earlier, self._now))
        seq = self._end + len(taken.rows) + len(new.rows)
        if key is not None:
            new.keyed[key] = seq, entry.digest
        if id is not None:
            new.labelled[id] = seq
        if entry.trace is not None:
            new.traces.append((seq, entry.trace))
        return seq

    def _find_keys(self, entries: Sequence[NewEntry]) -> dict[OwnedKey, Keyed]:
        """Return which keys of some entries the table has."""
        wanted: dict[tuple[EntryKind, str], list[str]] = {}
        for kind, owner, key in {owned(entry) for entry in entries if entry.key is not None}:
            wanted.setdefault((kind, owner), []).append(key)
        found: dict[OwnedKey, Keyed] = {}
        for (kind, owner), keys in wanted.items():
            if kind == "feedback":  # a class may be named again after it was forgotten
                found |= {(kind, owner, key): (seq, None) for key, seq in self._forgotten(owner, keys)}
            found |= {(kind, owner, key): (seq, digest) for key, seq, digest in self._with_keys(kind, owner, keys)}
        return found

    def _forgotten(self, owner: str, keys: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yield the keys that forgotten feedback came under, and its sequence numbers."""
        if self._connection.execute("SELECT 1 FROM feedback WHERE kind = 'forgotten' AND key IS NOT NULL LIMIT 1").fetchone():
            (secret,) = self._connection.execute("SELECT value FROM secret").fetchone()
            left = {tombstone_key(secret, key): key for key in keys}
            yield from ((left[hashed], seq) for hashed, seq, _ in self._with_keys("forgotten", owner, list(left)))

    def _with_keys(self, kind: EntryKind, owner: str, keys: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield which of some keys the table has, with the sequence number and the digest of each."""
        owners = "(kind = 'class' OR coalesce(source, '') = ?)"
        query = f"SELECT key, seq, digest FROM feedback WHERE kind = ? AND {owners} AND key IN"
        for some in in_parts(keys):
            yield from self._connection.execute(f"{query} {marks(some)}", (kind, owner, *some))

    def _find_labels(self, entries: Sequence[NewEntry]) -> dict[str, int]:
        """Return the latest labels, by prediction, that the table has of those that some entries are for."""
        ids = {entry.prediction_id for entry in entries if entry.prediction_id is not None} - self._taken.labelled.keys()
        found: dict[str, int] = {}
        for some in in_parts(list(ids)):
            query = f"SELECT prediction_id, max(seq) FROM feedback WHERE prediction_id IN {marks(some)} GROUP BY prediction_id"
            found.update(self._connection.execute(query, some))
        return found


def owned(entry: NewEntry) -> OwnedKey:
    """Return an entry's key as what one source can't take from another: a class has one name for all."""
    assert entry.key is not None
    return entry.kind, "" if entry.kind == "class" else entry.source or "", entry.key


def tombstone_key(secret: bytes, key: str) -> str:
    """Return what stands for the key of a forgotten entry."""
    return hmac.new(secret, key.encode(), hashlib.sha256).hexdigest()
