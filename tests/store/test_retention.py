from __future__ import annotations

from hypothesis import given, strategies as st

from service.store.embedded.retention import is_kept

KEEP = st.integers(2, 300)
NEWEST = st.integers(0, 5_000)


def kept(newest: int, keep: int) -> list[int]:
    return [version for version in range(newest + 1) if is_kept(version, newest=newest, keep=keep)]


@given(NEWEST, KEEP)
def test_the_newest_are_kept_and_the_first(newest: int, keep: int) -> None:
    assert {0, *range(max(0, newest - keep + 1), newest + 1)} <= set(kept(newest, keep))


@given(NEWEST, KEEP)
def test_one_is_kept_for_each_doubling_of_the_age(newest: int, keep: int) -> None:
    ages = [newest - version for version in kept(newest, keep) if version]
    doublings = [age.bit_length() for age in ages if age >= keep]
    assert len(doublings) == len(set(doublings))
    assert len(ages) <= keep + newest.bit_length()


@given(st.integers(1, 10**9), st.integers(0, 10**9), KEEP, st.integers(1, 10**6))
def test_what_is_not_kept_is_not_wanted_later(newest: int, version: int, keep: int, later: int) -> None:
    version = min(version, newest)
    if is_kept(version, newest=newest + later, keep=keep):
        assert is_kept(version, newest=newest, keep=keep)


@given(NEWEST, KEEP, st.data())
def test_a_rebuild_replays_fewer_versions_than_twice_the_age(newest: int, keep: int, data: st.DataObject) -> None:
    version = data.draw(st.integers(0, newest))
    nearest = max(each for each in kept(newest, keep) if each <= version)
    assert version - nearest < max(1, 2 * (newest - version))


@given(st.integers(0, 400), KEEP)
def test_letting_go_step_by_step_ends_where_the_rule_says(newest: int, keep: int) -> None:
    stored: list[int] = []
    for number in range(newest + 1):
        stored = [version for version in [*stored, number] if is_kept(version, newest=number, keep=keep)]
    assert stored == kept(newest, keep)
