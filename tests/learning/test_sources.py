from __future__ import annotations

import json

import numpy as np
from hypothesis import given, strategies as st

from service.learning.factors import DOUBTED
from service.learning.sources import Sources


def taught(losses: dict[str, float], items: int = 40, share: float = 2.0) -> Sources:
    """Return sources that each brought as many items, with these mean losses."""
    sources, rng = Sources(share, {}), np.random.default_rng(0)
    for _ in range(items):
        sources.count(list(losses))
        for name, loss in losses.items():
            sources.judge(name, float(rng.random() < loss))
    return sources


def test_a_source_that_is_wrong_far_more_often_than_the_others_is_doubted() -> None:
    sources = taught({"a": 0.05, "b": 0.1, "c": 0.08, "bad": 0.95})
    assert [name for name in "abc" if sources.doubted(name)] == []
    assert sources.doubted("bad")


def test_when_the_world_changes_for_all_nobody_is_doubted() -> None:
    sources = taught(dict.fromkeys("abcde", 0.9))
    assert not any(sources.doubted(name) for name in "abcde")


def test_of_two_nobody_can_say_which_is_wrong() -> None:
    sources = taught({"a": 0.05, "bad": 0.95})
    assert not sources.doubted("bad")


def test_a_little_evidence_is_none() -> None:
    sources = taught({"a": 0.05, "b": 0.1, "c": 0.08, "bad": 0.95}, items=9)
    assert not sources.doubted("bad")


def test_a_source_that_mends_its_ways_is_believed_again() -> None:
    sources = taught({"a": 0.05, "b": 0.1, "c": 0.08, "bad": 0.95})
    for _ in range(300):
        sources.count(["bad"])
        sources.judge("bad", 0.0)
    assert not sources.doubted("bad")


def test_no_source_weighs_more_than_its_share() -> None:
    sources = Sources(2.0, {})
    sources.count(["loud"] * 500 + [f"s{number % 9}" for number in range(500)])
    factor = sources.share_factor("loud")
    assert abs(500 * factor / (500 * factor + 500) - 0.2) < 0.02
    assert sources.share_factor("s1") == 1.0


def test_with_two_sources_or_no_limit_everything_weighs_as_it_is_said() -> None:
    two, unlimited = Sources(2.0, {}), Sources(0.0, {})
    two.count(["loud"] * 99 + ["quiet"])
    unlimited.count(["loud"] * 90 + ["a", "b", "c", "d", "e"] * 2)
    assert two.share_factor("loud") == unlimited.share_factor("loud") == 1.0


def test_the_share_alone_never_looks_like_doubt() -> None:
    sources = Sources(0.1, {})
    sources.count(["loud"] * 900 + [f"s{number}" for number in range(50)] * 2)
    assert sources.share_factor("loud") > DOUBTED


@given(st.lists(st.sampled_from("abcd"), max_size=200))
def test_what_is_known_can_be_taken_in_again(names: list[str]) -> None:
    sources = Sources(2.0, {})
    for name in names:
        sources.count([name])
        sources.judge(name, len(names) % 7 / 7)
    again = Sources(2.0, json.loads(json.dumps(sources.known())))
    assert again.known() == sources.known()
    assert again.describe() == sources.describe()


def test_a_source_that_went_away_is_let_go() -> None:
    sources = Sources(2.0, {})
    sources.count(["once"])
    sources.count(["always"] * 10_000)
    assert sources.known().keys() == {"always"}
