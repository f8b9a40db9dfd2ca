from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from service.store.embedded.rows import MOST_BYTES, MOST_ROWS, insert


class Watched(sqlite3.Connection):
    """Takes note of the bytes that each statement has a copy of."""

    bound: list[int]

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:  # type: ignore[override]
        self.bound.append(sum(len(value) for value in parameters if isinstance(value, bytes)))
        return super().execute(sql, parameters)


@pytest.fixture
def connection() -> Iterator[Watched]:
    with closing(sqlite3.connect(":memory:", factory=Watched)) as connection:
        connection.bound = []
        connection.execute("CREATE TABLE pictures (picture BLOB, crc INTEGER)")
        connection.bound.clear()
        yield connection


@pytest.mark.parametrize("size", [0, 10, MOST_BYTES // MOST_ROWS, MOST_BYTES // 3, MOST_BYTES + 1])
def test_no_statement_keeps_more_than_one_large_row_or_a_few_that_are_small(connection: Watched, size: int) -> None:
    rows = [(bytes([number]) * size,) for number in range(2 * MOST_ROWS + 1)]
    insert(connection, "INSERT INTO pictures", ("picture",), rows, bulk="picture")
    assert max(connection.bound) <= max(MOST_BYTES, size)
    assert connection.execute("SELECT picture FROM pictures").fetchall() == rows
