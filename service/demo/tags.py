"""`everlearn demo tags`: messages that are about several things at once, tagged one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from service.client import Client
from service.demo.course import ask, follow, show
from service.demo.running import Running
from service.demo.tickets import tickets
from service.templates import render

ITEMS = 1200
ASKED = ("Hi, the screen is cracked and I was charged twice.", "hello")


class FrequentTags:
    """The tags that more than half of the messages had."""

    name = "the usual tags"

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._items = 0

    def answer(self, instance: str) -> dict[str, Any] | None:
        """Return the tag sets' best constant: the frequent ones, or the most frequent one where none is."""
        if not self._counts:
            return None
        frequent = [tag for tag, count in self._counts.items() if 2 * count > self._items]
        return {"labels": frequent or [self._counts.most_common(1)[0][0]]}

    def learn(self, instance: str, label: Sequence[str]) -> None:
        """Count the tags."""
        self._counts.update(label)
        self._items += 1


def config() -> str:
    """Return the configuration."""
    return render("tags")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    stream = list(islice(tickets(np.random.default_rng(0)), ITEMS))
    with running, Client(running.url) as client:
        course = follow(client, stream, score=f1, metric="F1", baselines=[FrequentTags()], console=running.console)
        answers = ask(client, ASKED, "labels")
        title = "messages with several tags"
        show(course, title=title, over=100, report=report, plot=plot, console=running.console, more={"answers": answers})
        running.console.print(
            "\n".join(f"  {', '.join(tags) or 'no tag'}: {text}" for text, tags in answers.items()), markup=False
        )
        if not once:
            running.serve_on([f"curl -s {running.url}/predict -H 'Content-Type: text/plain' --data '{ASKED[0]}'"])


def f1(answer: Mapping[str, Any], label: Sequence[str]) -> float:
    """Return F1 of the answered tags; two empty sets are the same."""
    hits, total = len({*answer["labels"]} & {*label}), len(answer["labels"]) + len(label)
    return 2 * hits / total if total else 1.0
