"""Two sides measured in turn in one run, so that a noisy neighbour hits both: the ratio counts, and its spread."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Ratio:
    """What one side is of the other, round by round."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return median(self.rounds)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.rounds):.2f} to {max(self.rounds):.2f})"


@dataclass(frozen=True)
class Rounds:
    """The figures of each side in each round, in the order in which they were measured."""

    sides: Mapping[str, list[Any]]

    def ratio(self, side: str, against: str, figure: Callable[[Any], float]) -> Ratio:
        """Compare two sides round by round."""
        pairs = zip(self.sides[side], self.sides[against], strict=True)
        return Ratio([figure(one) / figure(other) for one, other in pairs])

    def median(self, side: str, figure: Callable[[Any], float]) -> float:
        """Return the median of a figure over the rounds."""
        return median(figure(each) for each in self.sides[side])

    def medians(self, figure: Callable[[Any], float]) -> dict[str, float]:
        """Return the median of each side."""
        return {side: self.median(side, figure) for side in self.sides}


def options(about: str | None, **defaults: int) -> argparse.Namespace:
    """Read the options of a benchmark, whole numbers all."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def interleaved(sides: Mapping[str, Callable[[], Any]], rounds: int) -> Rounds:
    """Measure every side in every round, in turn forwards and backwards, after one round of warm-up that does not count."""
    measured: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        names = list(sides)
        for name in names if number % 2 else reversed(names):
            figure = sides[name]()
            if number:
                measured[name].append(figure)
    return Rounds(measured)


@dataclass(frozen=True)
class Row:
    """One row of RESULTS.md: what was measured, against what, with which goal."""

    number: int
    figure: str
    against: str
    goal: str
    measured: str
    reached: bool
    remarks: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def write(self) -> None:
        """Print the row and keep it, with its date and the versions, for the report."""
        print(f"{self.number} {self.figure}: {self.measured} (goal: {self.goal})", flush=True)
        RESULTS.mkdir(exist_ok=True)
        content = {**self.__dict__, "date": f"{datetime.now(UTC):%Y-%m-%d}", "python": platform.python_version()}
        content["torch"] = version("torch")
        content["reached"] = bool(self.reached)  # numpy's False is no JSON: as text it would be true
        path = RESULTS / f"{self.number:02}-{''.join(c if c.isalnum() else '-' for c in self.figure.lower())[:60]}.json"
        path.write_text(json.dumps(content, indent=1, default=str) + "\n")
