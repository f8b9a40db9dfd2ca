"""Dates as people write them, and as machines do: a small language to translate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np

Rng = np.random.Generator

FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def dates(rng: Rng) -> Iterator[tuple[str, str]]:
    """Yield dates in five formats with their ISO form, without end."""
    while True:
        day = FIRST + timedelta(days=int(rng.integers((LAST - FIRST).days)))
        yield _written(day, int(rng.integers(5))), day.isoformat()


def _written(day: date, format: int) -> str:
    month = MONTHS[day.month - 1]
    match format:
        case 0:
            return f"{day.day} {month} {day.year}"
        case 1:
            return f"{month} {day.day}, {day.year}"
        case 2:
            return f"{day.day:02}.{day.month:02}.{day.year}"
        case 3:
            return f"{day.month}/{day.day}/{day.year}"
        case _:
            return f"{month[:3]} {day.day:02} {day.year}"
