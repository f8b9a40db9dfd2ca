"""How much each source may teach, in items a second: a token bucket each."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

MOST_SOURCES = 10_000  # that are remembered; one whose bucket is full again need not be


@dataclass(slots=True)
class _Bucket:
    items: float
    at: float


class Pace:
    """Token buckets in one process: `rate` items a second flow into each, up to `burst`. A rate of 0 is no limit."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[Hashable, _Bucket] = {}

    def take(self, source: Hashable, items: int) -> float:
        """Take items out of a source's bucket and return 0, or return the seconds after which they can be taken.

        A request of more than the burst has to find the bucket full, and leaves it in debt: so it passes, and costs its time.
        """
        if not self._rate:
            return 0.0
        bucket = self._filled(source)
        missing = min(items, self._burst) - bucket.items
        if missing > 0:
            return missing / self._rate
        bucket.items -= items
        return 0.0

    def _filled(self, source: Hashable) -> _Bucket:
        now = self._clock()
        if source not in self._buckets:
            if len(self._buckets) >= MOST_SOURCES:
                self._forget_full(now)
            self._buckets[source] = _Bucket(self._burst, now)
        bucket = self._buckets[source]
        bucket.items = self._level(bucket, now)
        bucket.at = now
        return bucket

    def _level(self, bucket: _Bucket, now: float) -> float:
        return min(self._burst, bucket.items + (now - bucket.at) * self._rate)

    def _forget_full(self, now: float) -> None:
        self._buckets = {source: bucket for source, bucket in self._buckets.items() if self._level(bucket, now) < self._burst}
