from __future__ import annotations

import pytest

from models.parts import field_parts, kept_text, number_parts, text_parts, tokens


def test_a_number_that_is_left_out_is_its_mean_or_zero() -> None:
    parts = number_parts([1.0, 2.0, 3.0], [7.0, 8.0, 9.0])
    assert parts.keep([True, False, True]) == [1.0, 8.0, 3.0]
    assert "mean" in parts.baseline
    parts = number_parts([1.0, 2.0, 3.0], None)
    assert parts.keep([True, False, True]) == [1.0, 0.0, 3.0]
    assert parts.baseline.startswith("0")
    assert parts.shaped([0.1, 0.2, 0.3]) == [0.1, 0.2, 0.3]


def test_a_field_that_is_left_out_is_missing_and_one_that_is_missing_is_no_part() -> None:
    parts = field_parts({"age": 3.0, "city": None, "member": False})
    assert parts.count == 2
    assert parts.keep([False, True]) == {"member": False}
    assert parts.shaped([0.1, 0.2]) == {"age": 0.1, "member": 0.2}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A fine day!", ["A", "fine", "day", "!"]),
        ("don't", ["don", "'", "t"]),
        ("  naïve\n日本 👍 ", ["naïve", "日本", "👍"]),
        ("", []),
        (" \t", []),
    ],
)
def test_tokens_are_words_and_signs_with_their_places(text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in tokens(text)] == found


@pytest.mark.parametrize("text", ["A fine day!", "  naïve\n日本 👍 ", "", " ", "x"])
def test_a_text_with_all_its_tokens_is_the_text(text: str) -> None:
    spans = tokens(text)
    assert kept_text(text, spans, [True] * len(spans)) == text


def test_a_token_takes_the_space_after_it_along() -> None:
    text = "not a bad  film"
    assert kept_text(text, tokens(text), [False, True, True, True]) == "a bad  film"
    assert kept_text(text, tokens(text), [True, True, False, True]) == "not a film"
    assert kept_text(text, tokens(text), [False] * 4) == ""


def test_the_tokens_of_a_text_are_answered_with_what_they_are_worth() -> None:
    parts = text_parts("Fine day", str.upper)
    assert parts.count == 2
    assert parts.keep([False, True]) == "DAY"
    assert parts.shaped([0.5, -0.5]) == [
        {"token": "Fine", "start": 0, "end": 4, "value": 0.5},
        {"token": "day", "start": 5, "end": 8, "value": -0.5},
    ]
