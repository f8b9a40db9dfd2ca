"""`everlearn demo translation`: dates as people write them, written as machines do, learned one by one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from service.client import Client
from service.demo.course import ask, follow, show
from service.demo.dates import dates
from service.demo.running import Running
from service.templates import render

ITEMS = 2400
ASKED = ("14 July 1989", "December 24, 2031", "7/4/1976")


class Copy:
    """The text itself."""

    name = "the text itself"

    def answer(self, instance: str) -> dict[str, Any]:
        """Return the text."""
        return {"text": instance}

    def learn(self, instance: str, label: str) -> None:
        """Nothing to learn."""


def config() -> str:
    """Return the configuration."""
    return render("translation")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    stream = list(islice(dates(np.random.default_rng(0)), ITEMS))
    with running, Client(running.url) as client:
        course = follow(client, stream, score=is_same, metric="exact match", baselines=[Copy()], console=running.console)
        answers = ask(client, ASKED, "text")
        title = "dates in five formats, written in one"
        show(course, title=title, over=100, report=report, plot=plot, console=running.console, more={"answers": answers})
        running.console.print("\n".join(f"  {text} -> {answer}" for text, answer in answers.items()), markup=False)
        if not once:
            running.serve_on([f"curl -s {running.url}/predict -H 'Content-Type: text/plain' --data '{ASKED[0]}'"])


def is_same(answer: Mapping[str, Any], label: str) -> float:
    """Return 1 where the text is the label, else 0."""
    return float(answer["text"] == label)
