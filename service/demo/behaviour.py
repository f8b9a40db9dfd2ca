"""`everlearn demo behaviour`: visits to a shop, event by event; what comes next?"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from service.client import Client
from service.demo.course import Majority, follow, is_right, show
from service.demo.running import Running
from service.demo.sessions import visits
from service.templates import render

ITEMS = 2000


class Transitions:
    """What has followed the latest event most often: a Markov chain of order 1."""

    name = "what mostly follows"

    def __init__(self) -> None:
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def answer(self, instance: list[str]) -> dict[str, Any] | None:
        """Return the most frequent next event, None after one that is new."""
        counts = self._counts.get(instance[-1])
        return {"label": counts.most_common(1)[0][0]} if counts else None

    def learn(self, instance: list[str], label: str) -> None:
        """Count the transition."""
        self._counts[instance[-1]][label] += 1


def config() -> str:
    """Return the configuration."""
    return render("behaviour")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    stream = list(islice(visits(np.random.default_rng(0), ITEMS // 2), ITEMS))
    with running, Client(running.url) as client:
        course = follow(
            client, stream, score=is_right, metric="accuracy", baselines=[Transitions(), Majority()], console=running.console
        )
        title = "the next event of a visit; the shop is rebuilt half-way"
        show(course, title=title, over=150, report=report, plot=plot, console=running.console)
        if not once:
            instance = json.dumps({"instances": [["from:newsletter", "video", "view:bikes"]], "top_k": 2})
            running.serve_on([f"curl -s {running.url}/predict --json '{instance}'"])
