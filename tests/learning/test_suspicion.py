from __future__ import annotations

from math import ceil, log2

from hypothesis import given, strategies as st

from service.learning.suspicion import STRIKES, Suspicion


def run(count: int, poison: set[int], most: int) -> tuple[list[int], int]:
    """Learn from items 1..count as the learner does; return which were convicted, and how many updates failed."""
    suspicion, applied, convicted, failures = Suspicion(), 0, [], 0
    while applied < count:
        last = min(count, applied + min(most, suspicion.limit or most))
        batch = set(range(applied + 1, last + 1))
        if not batch & poison:
            suspicion.passed(last)
            applied = last
            continue
        failures += 1
        suspicion.failed(last, len(batch))
        if len(batch) == 1 and suspicion.convicts:
            convicted.append(last)
            suspicion.passed(last)
            applied = last
        suspicion = Suspicion(**suspicion.dump())  # as if the process had died
    return convicted, failures


@given(st.integers(1, 300), st.sets(st.integers(1, 300), max_size=4), st.integers(1, 256))
def test_exactly_the_poison_is_convicted_within_logarithmic_failures(count: int, poison: set[int], most: int) -> None:
    guilty = {item for item in poison if item <= count}
    convicted, failures = run(count, guilty, most)
    assert convicted == sorted(guilty)
    assert failures <= len(guilty) * (ceil(log2(most + 1)) + STRIKES)


def test_one_failure_that_never_comes_again_costs_no_item() -> None:
    suspicion = Suspicion()
    suspicion.failed(100, 100)
    assert suspicion.limit == 50
    suspicion.passed(50)
    suspicion.passed(75)
    assert suspicion.limit == 12
    suspicion.passed(100)
    assert (suspicion.limit, suspicion.convicts) == (None, False)


def test_a_single_item_is_convicted_after_its_strikes_in_a_row_only() -> None:
    suspicion = Suspicion()
    for _ in range(STRIKES - 1):
        suspicion.failed(7, 1)
        assert not suspicion.convicts
    suspicion.passed(6)
    suspicion.failed(7, 1)
    assert not suspicion.convicts
