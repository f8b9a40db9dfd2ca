from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, strategies as st

from models.names import seemly, unseemly


@pytest.mark.parametrize(
    "name", ["cat", "a b", "été", "犬", "می\u200cشود", "क्\u200dष", "👩\u200d🚀", "❤\ufe0f", "O'Brien/2", "🇩🇪"]
)
def test_a_name_that_can_be_seen_is_taken_as_it_is(name: str) -> None:
    assert seemly(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "cat\0",
        "c\nat",
        "\tcat",
        "cat\x7f",
        "cat\x85",
        "\u202ecat",
        "ca\u2066t\u2069",
        "cat\u200e",
        "cat\u061c",
        "ca\u200bt",
        "cat\ufeff",
        "c\u00adat",
        "cat\u2060",
        "cat\u2028",
        "cat\u200d",
        "ca\u200ct",
        "犬\u200d",
        "犬\u200d\u200d犬",
        "cat\ufe0f",
        "ca\u034ft",
        "\u3164",
        "cat\u2800",
        "cat\U000e0041",
        "\ud83d",
    ],
    ids=ascii,
)
def test_what_can_not_be_seen_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name can't have"):
        seemly(name)


def test_a_name_is_one_name_however_it_was_typed() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert seemly(composed) == seemly(decomposed) == composed
    assert seemly("\u212b") == "\u00c5"  # the sign for angstrom is the letter
    assert seemly("ﬁ") == "ﬁ"  # a ligature looks different and stays


@given(st.text())
def test_a_name_that_was_taken_is_taken_again_unchanged(name: str) -> None:
    if unseemly(name) is None:
        once = seemly(name)
        assert seemly(once) == once == unicodedata.normalize("NFC", name)
