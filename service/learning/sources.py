"""Who teaches: how much each source brings, and whether its labels agree with everybody else's.

No single source may steer the model: what one brings beyond its share weighs less, and where a source is wrong far more often
than the others are, by what they all have taught the model, its labels are doubted. When the world changes it changes for all
sources, and nobody stands out: honest drift is learned as fast as ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from service.learning.factors import DOUBTED

FADING = 0.99  # per item of a source: its last hundred count
FEWEST_SOURCES = 3  # with two, nobody can say which of them is wrong
FEWEST_ITEMS = 10.0  # of a source, faded, before anything is said of it
ACTIVE = 0.01  # part of the recent feedback that a source brings, at least, to count as one
ERRORS = 3.0  # standard errors that count as noise
APART = 0.2  # loss (0 to 1) by which a source stands out at least


@dataclass(slots=True)
class Record:
    """What is known of a source: how much it brought lately, and what was lost on it."""

    recent: float = 0.0
    """Items, faded by all items: its share, over the sum of all."""
    items: float = 0.0
    """Judged items, faded by its own."""
    loss: float = 0.0
    """The sum of their losses, faded likewise."""

    @property
    def mean(self) -> float:
        """The mean loss; 0 where nothing was judged."""
        return self.loss / self.items if self.items else 0.0


class Sources:
    """The sources by name. `share` is what one may weigh at most, in multiples of an equal share; 0: as much as it brings."""

    def __init__(self, share: float, known: Mapping[str, Mapping[str, float]]) -> None:
        self._share = share
        self._records = {name: Record(**record) for name, record in known.items()}

    def count(self, names: Sequence[str], memory: float = 0.998) -> None:
        """Take in who brings the next items."""
        for record in self._records.values():
            record.recent *= memory ** len(names)
        for name in names:
            self._records.setdefault(name, Record()).recent += 1.0
        self._records = {name: record for name, record in self._records.items() if record.recent > 1e-3}

    def judge(self, name: str, loss: float) -> None:
        """Take in the loss, 0 to 1, on an item of a source, before it was learned from."""
        record = self._records.setdefault(name, Record())
        record.items = record.items * FADING + 1.0
        record.loss = record.loss * FADING + loss

    @property
    def active(self) -> list[str]:
        """The sources that bring more than a trickle."""
        total = sum(record.recent for record in self._records.values())
        return [name for name, record in self._records.items() if record.recent >= ACTIVE * total]

    def share_factor(self, name: str) -> float:
        """Return the factor that brings what a source weighs down to its share."""
        active = self.active
        if not self._share or len(active) < FEWEST_SOURCES or name not in active:
            return 1.0
        most = self._share / len(active)
        total = sum(self._records[each].recent for each in active)
        part = self._records[name].recent / total
        if most >= 1 or part <= most:
            return 1.0
        return max(2 * DOUBTED, most / (1 - most) * (1 - part) / part)

    def doubted(self, name: str) -> bool:
        """Return whether a source is wrong far more often than the others, beyond noise: by the median of the others."""
        own = self._records.get(name)
        others = [self._records[each] for each in self.active if each != name]
        others = [record for record in others if record.items >= FEWEST_ITEMS]
        if own is None or own.items < FEWEST_ITEMS or len(others) < FEWEST_SOURCES - 1:
            return False
        typical = median(record.mean for record in others)
        error = math.sqrt(0.25 / own.items + 0.25 / min(record.items for record in others))
        return own.mean - typical > max(APART, ERRORS * error)

    def describe(self) -> dict[str, dict[str, float]]:
        """Return, for operators, each source's part of the recent feedback, its loss, and whether it is doubted."""
        total = sum(record.recent for record in self._records.values())
        return {
            name: {
                "share": round(record.recent / total, 6),
                "loss": round(record.mean, 6),
                "doubted": float(self.doubted(name)),
            }
            for name, record in self._records.items()
        }

    def known(self) -> dict[str, Any]:
        """Return what is known, as it can be taken in again."""
        return {name: asdict(record) for name, record in self._records.items()}
