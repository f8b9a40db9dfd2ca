from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from service.store.embedded.database import Database, row_sum, row_sums

VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text() | st.binary()


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[VALUES] * width), min_size=1, max_size=5)))
def test_the_sums_of_rows_are_those_of_each(rows: list[tuple[object, ...]]) -> None:
    assert row_sums(list(zip(*rows, strict=True))) == [row_sum(*row) for row in rows]


@pytest.mark.parametrize("column", [[0.0, -0.0], [1, 1.0, True], [b"a", b"a"], [None, None], ["", b""]])
def test_values_that_are_equal_and_not_the_same_have_sums_of_their_own(column: list[object]) -> None:
    assert row_sums([column]) == [row_sum(value) for value in column]


def test_a_new_database_that_many_open_at_once_opens_for_all(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def open_at_once(number: int) -> None:
        together.wait(10)
        Database(tmp_path / f"{number}.db", "CREATE TABLE IF NOT EXISTS rows (value)", synchronous="FULL").close()

    with ThreadPoolExecutor(4) as pool:
        for number in range(100):
            list(pool.map(open_at_once, [number] * 4))
