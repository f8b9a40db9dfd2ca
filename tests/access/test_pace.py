from __future__ import annotations

from hypothesis import given, strategies as st

from service.access.pace import MOST_SOURCES, Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_source_may_send_its_burst_at_once_and_then_its_rate() -> None:
    clock = Clock()
    pace = Pace(10, 50, clock)
    assert pace.take("a", 50) == 0
    assert pace.take("a", 5) == 0.5
    clock.now += 0.5
    assert pace.take("a", 5) == 0
    clock.now += 1000
    assert pace.take("a", 51) == 0  # more than the burst: the bucket is left in debt
    assert pace.take("a", 1) == 0.2


def test_one_source_takes_nothing_from_another() -> None:
    pace = Pace(1, 10, Clock())
    assert pace.take("a", 10) == 0
    assert pace.take("b", 10) == 0
    assert pace.take(None, 10) == 0
    assert pace.take("a", 1) > 0


def test_a_rate_of_nothing_is_no_limit() -> None:
    pace = Pace(0, 1, Clock())
    assert all(pace.take("a", 1000) == 0 for _ in range(100))


def test_sources_that_rested_are_forgotten_and_those_in_debt_are_not() -> None:
    clock = Clock()
    pace = Pace(1, 10, clock)
    for number in range(MOST_SOURCES - 1):
        pace.take(f"once{number}", 1)
    clock.now += 1
    pace.take("greedy", 10)
    pace.take("new", 1)
    assert len(pace._buckets) == 2
    assert pace.take("greedy", 10) == 10


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0, 5)), max_size=60))
def test_whatever_is_asked_no_more_passes_than_burst_and_rate_allow(asked: list[tuple[int, float]]) -> None:
    clock = Clock()
    pace = Pace(20, 100, clock)
    start, passed = clock.now, 0
    for items, pause in asked:
        clock.now += pause
        before = passed
        if pace.take("a", items) == 0:
            passed += items
            # What came before the last request is paid for; the last one may be in debt.
            assert before <= 100 + 20 * (clock.now - start) + 1e-6
