"""Rows on their way into a table: many by one statement, each with its sum."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, count
from typing import Any

from service.store.embedded.database import alike, row_sums

# One statement inserts many rows. The interpreter's lock is let go of once, not once a row: with a busy event loop beside it, a
# writer waits to have it back each time. What the rows share is bound once: None and bytes take sqlite3 longest of all. Each
# statement has a copy of its rows.
MOST_ROWS = 32
MOST_BYTES = 256 * 1024


def insert(
    connection: sqlite3.Connection, into: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, bulk: str
) -> None:
    """Insert rows with the sum of each as `crc`. `into` is the statement's beginning; `bulk` the column that may be large."""
    if not rows:
        return
    at = columns.index(bulk)
    largest = max(len(row[at]) for row in rows)
    size = max(1, min(MOST_ROWS, MOST_BYTES // max(1, largest)))
    for start in range(0, len(rows), size):
        _insert_some(connection, into, columns, rows[start : start + size])


def _insert_some(connection: sqlite3.Connection, into: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    values: list[Sequence[Any]] = list(zip(*rows, strict=True))
    values.append(row_sums(values))
    shared = tuple(map(alike, values))
    once = [column[0] for column, is_shared in zip(values, shared, strict=True) if is_shared]
    each = zip(*(column for column, is_shared in zip(values, shared, strict=True) if not is_shared), strict=True)
    connection.execute(_statement(into, (*columns, "crc"), len(rows), shared), [*once, *chain.from_iterable(each)])


@lru_cache(512)
def _statement(into: str, columns: Sequence[str], rows: int, shared: Sequence[bool]) -> str:
    """Return the statement that inserts so many rows. It takes the values that all rows share, then the others of each."""
    numbers = count(1)
    once = {column: f"?{next(numbers)}" for column, is_shared in zip(columns, shared, strict=True) if is_shared}
    values = [f"({', '.join(once.get(column) or f'?{next(numbers)}' for column in columns)})" for _ in range(rows)]
    return f"{into} ({', '.join(columns)}) VALUES {', '.join(values)}"
