from __future__ import annotations

import json

import torch

from service.learning.duplicates import REMEMBERED, NearDuplicates

FEATURES = torch.rand(50, 32, generator=torch.Generator().manual_seed(0)) + 5  # all positive, far from the origin


def test_an_item_that_another_source_labelled_otherwise_is_contrary() -> None:
    found = NearDuplicates({})
    assert not any(found.contrary(FEATURES, ["a"] * 50, ["one"] * 50))
    near = FEATURES[:4] + 0.001
    assert found.contrary(near, ["b", "a", "b", "a"], ["two"] * 4) == [True, False, True, False]


def test_a_source_may_change_its_own_mind() -> None:
    found = NearDuplicates({})
    found.contrary(FEATURES, ["a"] * 50, ["one"] * 50)
    assert found.contrary(FEATURES[:2], ["b", "b"], ["one"] * 2) == [False, False]


def test_other_items_of_the_same_stream_are_no_duplicates() -> None:
    found = NearDuplicates({})
    found.contrary(FEATURES[:25], ["a"] * 25, ["one"] * 25)
    assert not any(found.contrary(FEATURES[25:], ["b"] * 25, ["two"] * 25))


def test_only_the_newest_are_remembered() -> None:
    found = NearDuplicates({})
    found.contrary(FEATURES[:1], ["a"], ["one"])
    for _ in range(REMEMBERED // 49 + 1):
        found.contrary(FEATURES[1:], ["a"] * 49, ["one"] * 49)
    assert found.contrary(FEATURES[:1], ["b"], ["two"]) == [False]


def test_features_that_are_no_vectors_have_none() -> None:
    found = NearDuplicates({})
    assert found.contrary({"not": "a tensor"}, ["a"], ["one"]) == [False]
    assert found.contrary(torch.zeros(2, 3, 4), ["a", "b"], ["one", "two"]) == [False, False]


def test_what_is_known_can_be_taken_in_again() -> None:
    found = NearDuplicates({})
    found.contrary(FEATURES, ["a"] * 50, ["one"] * 50)
    again = NearDuplicates(json.loads(json.dumps(found.known())))
    near = FEATURES[:4] + 0.001
    assert again.contrary(near, ["b"] * 4, ["two"] * 4) == found.contrary(near, ["b"] * 4, ["two"] * 4) == [True] * 4
