"""Generated visits to a shop, whose next event hangs on the last one, and on what came long before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Rng = np.random.Generator

SOURCES = ("from:search", "from:newsletter", "from:ad")
CATEGORIES = {"shoes": "laces", "phones": "case", "bikes": "lock", "cameras": "lens"}
NOISE = 0.05  # share of events that follow no rule
LONGEST = 14


def visits(rng: Rng, drift_after: int) -> Iterator[tuple[list[str], str]]:
    """Yield the events of a visit so far and the one that followed, for every moment of every visit, without end.

    After `drift_after` moments the shop is rebuilt: who comes from the newsletter finds other things first.
    """
    moments = 0
    while True:
        visit = [SOURCES[rng.integers(len(SOURCES))]]
        category = list(CATEGORIES)[rng.integers(len(CATEGORIES))]
        while visit[-1] != "leave":
            following = _next(rng, visit, category, rebuilt=moments >= drift_after)
            yield list(visit), following
            moments += 1
            visit.append(following)


def _next(rng: Rng, visit: list[str], category: str, *, rebuilt: bool) -> str:
    if rng.random() < NOISE or len(visit) >= LONGEST:
        return "leave"
    source, last = visit[0], visit[-1]
    accessory = f"view:{CATEGORIES[category]}"
    if last.startswith("from:"):
        if source == "from:newsletter":
            return "video" if rebuilt else "sale"
        return "home"
    if last in {"home", "sale", "video"}:
        return f"view:{category}"
    if last == f"view:{category}":
        return "reviews" if source == "from:search" else "cart"
    if last == "reviews":
        return "cart"
    if last == "cart":
        return "checkout" if accessory in visit or source == "from:ad" else accessory
    if last == accessory:
        return "cart"
    return "leave" if last == "pay" else "pay"
