from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.store import KeyReused, NewEntry
from service.store.embedded.database import MOST_ASKED, Database
from service.store.embedded.log import SCHEMA
from service.store.embedded.rows import MOST_BYTES, MOST_ROWS
from service.store.embedded.tail import Tail


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(Database(tmp_path / "feedback.db", SCHEMA, synchronous="FULL")) as database:
        yield database.connection()


def entry(
    label: str, *, key: str | None = None, prediction_id: str | None = None, instance: bytes = b"x", trace: str | None = None
) -> NewEntry:
    digest = label.encode()
    return NewEntry(instance=instance, label=label, digest=digest, key=key, prediction_id=prediction_id, trace=trace)


def written(connection: sqlite3.Connection) -> list[tuple[int, str, int | None]]:
    return connection.execute("SELECT seq, label, replaces FROM feedback ORDER BY seq").fetchall()


def test_an_append_finds_what_came_before_it_in_the_same_transaction(connection: sqlite3.Connection) -> None:
    tail = Tail(connection)
    assert tail.append([entry("a", key="k", prediction_id="p"), entry("b", prediction_id="p")]) == [1, 2]
    assert tail.append([entry("a", key="k", prediction_id="p"), entry("c", prediction_id="p")]) == [1, 3]
    tail.write()
    assert written(connection) == [(1, "a", None), (2, "b", 1), (3, "c", 2)]


def test_what_a_refused_append_brought_is_found_by_none_that_comes_after_it(connection: sqlite3.Connection) -> None:
    tail = Tail(connection)
    assert tail.append([entry("a", key="known", prediction_id="p")]) == [1]
    refused = tail.append([entry("b", key="new", prediction_id="p"), entry("other", key="known")])
    assert isinstance(refused, KeyReused)
    assert refused.index == 1
    assert tail.append([entry("c", key="new", prediction_id="p")]) == [2]
    tail.write()
    assert written(connection) == [(1, "a", None), (2, "c", 1)]


def test_a_transaction_goes_on_where_the_one_before_it_ended_also_when_its_entries_are_gone(
    connection: sqlite3.Connection,
) -> None:
    for expected in (1, 2):
        tail = Tail(connection)
        assert tail.append([entry("a")]) == [expected]
        tail.write()
        connection.execute("DELETE FROM feedback")


@pytest.mark.parametrize("count", [1, MOST_ROWS, MOST_ROWS + 1, 3 * MOST_ROWS - 1])
@pytest.mark.parametrize("size", [0, 10, MOST_BYTES // 4])
def test_any_number_of_rows_of_any_size_is_written_in_order(connection: sqlite3.Connection, count: int, size: int) -> None:
    tail = Tail(connection)
    tail.append([entry(str(number), instance=b"x" * size, trace=f"t{number}") for number in range(count)])
    tail.write()
    assert written(connection) == [(number + 1, str(number), None) for number in range(count)]
    assert connection.execute("SELECT count(*) FROM feedback WHERE length(instance) = ?", (size,)).fetchone() == (count,)
    assert connection.execute("SELECT seq, trace FROM traces ORDER BY seq").fetchall() == [
        (number + 1, f"t{number}") for number in range(count)
    ]


def test_more_keys_and_predictions_than_one_statement_asks_for_are_all_found(connection: sqlite3.Connection) -> None:
    entries = [entry(str(number), key=f"k{number}", prediction_id=f"p{number}") for number in range(2 * MOST_ASKED + 1)]
    first = Tail(connection)
    seqs = first.append(entries)
    assert isinstance(seqs, list)
    first.write()
    second = Tail(connection)
    assert second.append(entries) == seqs
    assert second.append([each._replace(key=None) for each in entries]) == [seq + len(entries) for seq in seqs]
    second.write()
    assert [replaces for *_, replaces in written(connection)] == [None] * len(entries) + seqs
