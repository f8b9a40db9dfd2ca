from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, strategies as st

from service.learning.randomness import Purpose, choices_for
from service.learning.rehearsal import MEMORIES, BalancedReservoir, Recent, Reservoir


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(1, 30))
def test_it_holds_all_until_it_is_full_and_then_its_capacity(chunks: list[int], capacity: int) -> None:
    reservoir, seen = Reservoir(capacity), 0
    for version, size in enumerate(chunks):
        reservoir.remember(range(seen + 1, seen + size + 1), [0] * size, choices_for(0, version, Purpose.REMEMBER))
        seen += size
        assert len(reservoir.seqs) == len(set(reservoir.seqs)) == min(seen, capacity)
        assert set(reservoir.seqs) <= set(range(1, seen + 1))


def test_every_item_has_the_same_chance_to_be_remembered() -> None:
    kept: Counter[int] = Counter()
    for seed in range(1000):
        reservoir = Reservoir(10)
        reservoir.remember(range(100), [0] * 100, choices_for(seed, 1, Purpose.REMEMBER))
        kept.update(reservoir.seqs)
    for decade in range(0, 100, 10):  # 1000 expected, a standard deviation of about 30
        assert 850 < sum(kept[seq] for seq in range(decade, decade + 10)) < 1150


def test_picks_differ_from_each_other_and_are_never_more_than_there_are() -> None:
    reservoir = Reservoir(10)
    choices = choices_for(0, 1, Purpose.REHEARSE)
    assert reservoir.pick(4, choices) == ()
    reservoir.remember([1, 2, 3], [0] * 3, choices)
    assert sorted(reservoir.pick(9, choices)) == [1, 2, 3]
    assert len(set(reservoir.pick(2, choices))) == 2
    assert reservoir.pick(0, choices) == ()


@pytest.mark.parametrize("policy", MEMORIES)
def test_it_goes_on_from_its_saved_state_as_if_never_interrupted(policy: str) -> None:
    whole, first, second = (MEMORIES[policy](12, 4) for _ in range(3))
    for memory in (whole, first):
        memory.remember(range(60), [seq % 3 for seq in range(60)], choices_for(0, 1, Purpose.REMEMBER))
    second.load(first.tensors())
    for memory in (whole, second):
        memory.remember(range(60, 90), [seq % 4 for seq in range(30)], choices_for(0, 2, Purpose.REMEMBER))
    assert whole.seqs == second.seqs
    assert whole.pick(8, choices_for(0, 3, Purpose.REHEARSE)) == second.pick(8, choices_for(0, 3, Purpose.REHEARSE))


@pytest.mark.parametrize("policy", MEMORIES)
@given(st.sets(st.integers(0, 39), max_size=40))
def test_what_is_forgotten_is_never_picked_again_and_the_rest_stays(policy: str, gone: set[int]) -> None:
    memory = MEMORIES[policy](50, 50)
    memory.remember(range(40), [seq % 3 for seq in range(40)], choices_for(0, 1, Purpose.REMEMBER))
    memory.forget(gone)
    assert set(memory.seqs) == set(range(40)) - gone
    assert not gone & set(memory.pick(200, choices_for(0, 2, Purpose.REHEARSE)))
    memory.remember([40], [0], choices_for(0, 3, Purpose.REMEMBER))
    assert set(memory.seqs) == set(range(41)) - gone


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300), st.integers(6, 40))
def test_a_balanced_memory_never_drops_a_class_and_holds_its_capacity(classes: list[int], capacity: int) -> None:
    memory = BalancedReservoir(capacity)
    for seq, label in enumerate(classes):
        memory.remember([seq], [label], choices_for(0, seq, Purpose.REMEMBER))
    assert len(memory.seqs) == len(set(memory.seqs)) <= capacity
    assert {classes[seq] for seq in memory.seqs} == set(classes)


def test_a_balanced_memory_rehearses_a_rare_class_as_often_as_a_frequent_one() -> None:
    classes = [int(seq % 100 == 0) for seq in range(5000)]
    memory = BalancedReservoir(1000)
    memory.remember(range(5000), classes, choices_for(0, 1, Purpose.REMEMBER))
    assert sum(classes[seq] for seq in memory.seqs) >= 40  # of the 50 that came, at the expense of the frequent class
    picked = memory.pick(1000, choices_for(0, 2, Purpose.REHEARSE))
    assert 430 < sum(classes[seq] for seq in picked) < 570


def test_recent_picks_are_young() -> None:
    memory = Recent(50)
    memory.remember(range(10_000), [0] * 10_000, choices_for(0, 1, Purpose.REMEMBER))
    ages = [9_999 - seq for seq in memory.pick(2000, choices_for(0, 2, Purpose.REHEARSE))]
    assert 42 < sum(ages) / len(ages) < 58
    assert max(ages) < 50 * Recent.reach


@pytest.mark.parametrize("policy", ["reservoir", "balanced", "mixed"])
def test_after_drift_a_long_memory_starts_again(policy: str) -> None:
    memory = MEMORIES[policy](1000, 10)
    memory.remember(range(500), [0] * 500, choices_for(0, 1, Purpose.REMEMBER))
    memory.shorten()
    assert len(memory.seqs) <= 10 * Recent.reach
