"""Rankings that explore, and what their labels tell of the ranking that does not."""

from __future__ import annotations

import math
import random

import numpy as np

from models.base import Scores

LEAST_PROPENSITY = 0.01  # weights of off-policy evaluation are clipped there (Ionides 2008)


def explored(order: list[int], count: int, share: float) -> tuple[list[int], list[float]]:
    """Return a ranking that begins with an item at random in a share of cases, and how probable each item was in its place.

    `order` is the ranking that does not explore, cut from one of `count` items; what is put first is taken out further down.
    """
    first = order[0]
    if random.random() < share:  # noqa: S311  # nobody gains by guessing it
        first = random.randrange(count)  # noqa: S311
    shown = [first, *(item for item in order if item != first)][: len(order)]
    moved = [share * (count - place if place else 1) / count for place in range(len(order))]
    stays = [1 - share + share * (place or 1) / count for place in range(len(order))]
    each = zip(shown, order, stays, moved, strict=True)
    return shown, [stay if item == usual else move for item, usual, stay, move in each]


def off_policy(columns: Scores) -> float:
    """Return the mean reward that showing the best item first would have had, from answers that explored.

    Self-normalised inverse propensity scoring with clipped weights (Swaminathan and Joachims 2015). What had a propensity
    of 1 was no ranking, but an item that was asked for by its name.
    """
    greedy, shown, propensity, reward = (
        columns[name].double().cpu().numpy() for name in ("greedy", "shown", "propensity", "reward")
    )
    told = (greedy == shown) & (propensity < 1) & ~np.isnan(reward)
    weights = 1 / np.maximum(propensity[told], LEAST_PROPENSITY)
    return float((weights * reward[told]).sum() / weights.sum()) if told.any() else math.nan
