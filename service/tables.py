"""CSV files: their rows, and what a cell says."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

TRUTH = {"true": True, "false": False}
MISSING = ("", "?", "na", "nan", "null")  # a missing number, as statistics programs write it

Row = dict[str, str]


class StreamError(Exception):
    """A file can't be read as it is; the message names the line or the column."""


def rows_of(stream: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line, row). Raises StreamError for a row that does not fit the header."""
    with open(stream, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, None)
            if not header or len(set(header)) != len(header):
                raise StreamError(f"{stream}: the first line must name every column, each once")
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise StreamError(f"line {reader.line_num}: {len(cells)} cells, and the header names {len(header)}")
                if cells:
                    yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=True))
        except (csv.Error, UnicodeDecodeError) as exc:
            raise StreamError(f"{stream} near line {reader.line_num + 1}: {exc}") from exc


def number(text: str) -> float:
    """Return a cell's number. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def typed(value: str, kind: str) -> float | bool | str | None:
    """Return a cell as a record has it; an empty cell is a missing value, as are MISSING among numbers. Raises ValueError."""
    if not value:
        return None
    if kind == "number":
        return None if value.lower() in MISSING else number(value)
    if kind == "boolean":
        if value.lower() not in TRUTH:
            raise ValueError(f"{value!r} is neither true nor false")
        return TRUTH[value.lower()]
    return value
