"""A histogram for what happens thousands of times a second."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress

from prometheus_client import Histogram
from prometheus_client.samples import Sample

SECONDS = 0.5
"""After how long what was observed is counted at the latest, where somebody calls `count`."""

MOST = 256
"""Observations of a series that wait: to count more in one go would be felt by those who are answered meanwhile."""

_series: list[Tally] = []


class Tally(Histogram):
    """Observations are appended to a list and counted together later, see `count`.

    Counted one by one, each in a file of its process, the eight of a prediction would take a fifth of its time.
    """

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Take note of an amount. There are no exemplars."""
        self._pending.append(amount)
        if len(self._pending) >= MOST:
            self.count()

    def count(self) -> None:
        """Count what was observed since the last time. Several threads may do so at once."""
        amounts: list[float] = []
        with suppress(IndexError):  # another thread was faster
            for _ in range(len(self._pending)):
                amounts.append(self._pending.popleft())  # noqa: PERF401  # what was taken must be counted in any case
        if amounts:
            self._sum.inc(sum(amounts))
            for bucket, times in Counter(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
                self._buckets[bucket].inc(times)

    def _metric_init(self) -> None:
        super()._metric_init()
        self._pending: deque[float] = deque()
        _series.append(self)

    def _child_samples(self) -> Iterable[Sample]:
        self.count()
        return super()._child_samples()


def count() -> None:
    """Count what all tallies of this process have observed."""
    for series in _series:
        series.count()
