from __future__ import annotations

from collections import Counter

from hypothesis import given, strategies as st

from service.learning.randomness import Purpose, choices_for
from service.learning.rehearsal import Reservoir


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(1, 30))
def test_it_holds_all_until_it_is_full_and_then_its_capacity(chunks: list[int], capacity: int) -> None:
    reservoir, seen = Reservoir(capacity), 0
    for version, size in enumerate(chunks):
        reservoir.remember(range(seen + 1, seen + size + 1), choices_for(0, version, Purpose.REMEMBER))
        seen += size
        assert len(reservoir.seqs) == len(set(reservoir.seqs)) == min(seen, capacity)
        assert set(reservoir.seqs) <= set(range(1, seen + 1))


def test_every_item_has_the_same_chance_to_be_remembered() -> None:
    kept: Counter[int] = Counter()
    for seed in range(1000):
        reservoir = Reservoir(10)
        reservoir.remember(range(100), choices_for(seed, 1, Purpose.REMEMBER))
        kept.update(reservoir.seqs)
    for decade in range(0, 100, 10):  # 1000 expected, a standard deviation of about 30
        assert 850 < sum(kept[seq] for seq in range(decade, decade + 10)) < 1150


def test_picks_differ_from_each_other_and_are_never_more_than_there_are() -> None:
    reservoir = Reservoir(10)
    choices = choices_for(0, 1, Purpose.REHEARSE)
    assert reservoir.pick(4, choices) == ()
    reservoir.remember([1, 2, 3], choices)
    assert sorted(reservoir.pick(9, choices)) == [1, 2, 3]
    assert len(set(reservoir.pick(2, choices))) == 2
    assert reservoir.pick(0, choices) == ()


def test_it_goes_on_from_its_saved_state_as_if_never_interrupted() -> None:
    whole, first = Reservoir(5), Reservoir(5)
    whole.remember(range(20), choices_for(0, 1, Purpose.REMEMBER))
    first.remember(range(20), choices_for(0, 1, Purpose.REMEMBER))
    second = Reservoir(5)
    second.load(first.tensors())
    for reservoir in (whole, second):
        reservoir.remember(range(20, 60), choices_for(0, 2, Purpose.REMEMBER))
    assert whole.seqs == second.seqs
