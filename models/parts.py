"""An instance cut into parts that can be left out: what an explanation attributes to, one function per form of instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.words import WORD


@dataclass(frozen=True, slots=True)
class Parts:
    """An instance cut into parts, and what is there in place of a part that is left out."""

    count: int
    baseline: str
    """What stands in for a part that is left out, for people to read."""
    keep: Callable[[Sequence[bool]], Any]
    """Return the prepared instance that has only these parts, [count]."""
    shaped: Callable[[Sequence[float]], Any]
    """Return one number for each part, [count], in the shape of the instance, as JSON."""
    drawn: Callable[[Sequence[float]], bytes] | None = None
    """Return a PNG of one number for each part over the instance; None where it is no picture."""


def number_parts(numbers: Sequence[float], means: Sequence[float] | None) -> Parts:
    """Cut a vector into its numbers; the mean of its column, or 0, stands in for one that is left out."""
    stand_ins = [0.0] * len(numbers) if means is None else means
    return Parts(
        count=len(numbers),
        baseline="0 for each number" if means is None else "the running mean of each number's column",
        keep=lambda present: [own if kept else other for own, other, kept in zip(numbers, stand_ins, present, strict=True)],
        shaped=list,
    )


def field_parts(record: Mapping[str, Any]) -> Parts:
    """Cut a record into the fields that it has; one that is left out is missing."""
    names = [name for name, value in record.items() if value is not None]
    return Parts(
        count=len(names),
        baseline="a missing value for each field",
        keep=lambda present: {name: record[name] for name, kept in zip(names, present, strict=True) if kept},
        shaped=lambda values: dict(zip(names, values, strict=True)),
    )


def text_parts(text: str, prepare: Callable[[str], Any]) -> Parts:
    """Cut a text into words and signs; one that is left out takes the space after it along. `prepare` is the kind's own."""
    spans = tokens(text)
    return Parts(
        count=len(spans),
        baseline="the text without the token",
        keep=lambda present: prepare(kept_text(text, spans, present)),
        shaped=lambda values: [
            {"token": text[start:end], "start": start, "end": end, "value": value}
            for (start, end), value in zip(spans, values, strict=True)
        ],
    )


def event_parts(events: Sequence[str], prepare: Callable[[Sequence[str]], Any]) -> Parts:
    """Cut a sequence into its events; one that is left out did not happen."""
    return Parts(
        count=len(events),
        baseline="the sequence without the event",
        keep=lambda present: prepare([event for event, kept in zip(events, present, strict=True) if kept]),
        shaped=list,
    )


def tokens(text: str) -> list[tuple[int, int]]:
    """Return where each word and each sign starts and ends, in characters."""
    return [match.span() for match in WORD.finditer(text)]


def kept_text(text: str, spans: Sequence[tuple[int, int]], present: Sequence[bool]) -> str:
    """Return the text with only these tokens, each with the space after it: the text itself where all are kept."""
    if not spans:
        return text
    starts = [0, *(start for start, _ in spans[1:]), len(text)]
    return "".join(text[starts[index] : starts[index + 1]] for index, kept in enumerate(present) if kept)
