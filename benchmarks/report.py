"""RESULTS.md: every row of rows.toml, with what the scripts measured last.

python -m benchmarks.report
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, versions
from benchmarks.rounds import RESULTS

ROWS = Path(__file__).with_name("rows.toml")
REPORT = Path(__file__).with_name("RESULTS.md")

READING = """
`make bench` measures all of this anew, row by row, and writes this file; `python -m benchmarks.swaps` measures one row.

Each script measures both sides of a row in one run, in turn forwards and backwards, several rounds after one that does not
count. Figures are ratios of the two sides: the median of the rounds, in brackets the smallest and the largest. A ratio travels
better from machine to machine than a time, and a noisy neighbour hits both sides of it; how far the rounds are apart says how
noisy it was.

Servers have core 0, and what loads them has core 1. everlearn runs as it comes: journal, request ids, metrics, validation,
durable feedback and the learner are on in every figure, unless the row says that the learner rests. Closed-loop load comes from
wrk; latency under load is measured open-loop, at a constant rate, each latency counted from when its request was due, so that
waiting is not hidden.
"""


@dataclass(frozen=True)
class Question:
    """A row of rows.toml: what is asked, and what there is to say where the goal is missed."""

    number: int
    script: str
    figure: str
    against: str
    goal: str
    arguments: Sequence[str] = ()
    why: str = ""
    next: str = ""


def questions() -> list[Question]:
    """Return all rows."""
    return [Question(**row) for row in tomllib.loads(ROWS.read_text())["row"]]


def parts(question: Question) -> list[Path]:
    """Return the files of what was measured for a row; several where it has several parts."""
    return sorted(RESULTS.glob(f"{question.number:02}-*.json"))


def found(question: Question) -> list[dict[str, Any]]:
    """Return what was measured for a row."""
    return [json.loads(path.read_text()) for path in parts(question)]


def table(rows: Sequence[Question]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| # | figure | against | goal | measured | reached |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        for part in found(row):
            reached = "yes" if part["reached"] else "**no**"
            cells = (part["figure"], part["against"], part["goal"], part["measured"], reached)
            yield f"| {row.number} | {' | '.join(cells)} |"
        if not found(row):
            yield f"| {row.number} | {row.figure} | {row.against} | {row.goal} | not measured | - |"


def details(rows: Sequence[Question]) -> Iterator[str]:
    """Yield the figures that each ratio is made of."""
    for row in rows:
        for part in found(row):
            yield f"- **{row.number}**, {part['figure']}, {part['date']}: {part['remarks']}"


def misses(rows: Sequence[Question]) -> Iterator[str]:
    """Yield why a goal is missed, and what would be next."""
    for row in rows:
        if not all(part["reached"] for part in found(row)):
            yield f"- **{row.number}**, {row.figure}: {row.why or 'the reason is not known yet.'}"
            yield f"  *Next:* {row.next or 'profile it.'}"


def report(rows: Sequence[Question]) -> str:
    """Return the whole file."""
    dates = sorted({part["date"] for row in rows for part in found(row)}) or ["not measured yet"]
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    missed = list(misses(rows)) or ["None."]
    named = (f"- {name}: {value}" for name, value in machine().items())
    versioned = ", ".join(f"{name} {value}" for name, value in versions().items())
    return "\n".join(
        [
            *("# What was measured", "", f"{when}, on the machine below.", "", *table(rows)),
            *("", "## How to read it", READING),
            *("## The figures behind the ratios", "", *details(rows)),
            *("", "## Goals that are missed", "", *missed),
            *("", "## Machine and versions", "", *named, f"- versions: {versioned}", ""),
        ]
    )


def main() -> None:
    REPORT.write_text(report(questions()))
    print(f"wrote {REPORT}")


if __name__ == "__main__":
    main()
