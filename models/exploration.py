"""Rankings that explore, and what their labels tell of the ranking that does not."""

from __future__ import annotations

import math
import random

import numpy as np

from models.base import Scores

LEAST_PROPENSITY = 0.01  # weights of off-policy evaluation are clipped there (Ionides 2008)


def explored(order: list[int], count: int, share: float) -> tuple[list[int], float]:
    """Return a ranking that begins with an item at random in a share of cases, and how probable its first item was."""
    first = order[0]
    if random.random() < share:  # noqa: S311  # nobody gains by guessing it
        first = random.randrange(count)  # noqa: S311
    others = [place for place in order if place != first]
    propensity = share / count + (1 - share if first == order[0] else 0.0)
    return [first, *others][: len(order)], propensity


def off_policy(columns: Scores) -> float:
    """Return the mean reward that showing the best item first would have had, from answers that explored.

    Self-normalised inverse propensity scoring with clipped weights (Swaminathan and Joachims 2015).
    """
    greedy, shown, propensity, reward = (
        columns[name].double().cpu().numpy() for name in ("greedy", "shown", "propensity", "reward")
    )
    told = (greedy == shown) & ~np.isnan(reward)
    weights = 1 / np.maximum(propensity[told], LEAST_PROPENSITY)
    return float((weights * reward[told]).sum() / weights.sum()) if told.any() else math.nan
