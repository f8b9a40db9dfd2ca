"""`everlearn demo sentiment`: texts in two languages, learned one by one; "not bad" has to become positive."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from service.client import Client
from service.demo.course import Majority, ask, follow, is_right, show
from service.demo.reviews import reviews
from service.demo.running import Running
from service.templates import render

ITEMS = 1200
ASKED = ("The plot was not bad at all.", "Der Film war überhaupt nicht überzeugend.", "A joy, and fast!")


def config() -> str:
    """Return the configuration."""
    return render("text")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    stream = list(islice(reviews(np.random.default_rng(0)), ITEMS))
    with running, Client(running.url) as client:
        course = follow(
            client,
            stream,
            score=is_right,
            metric="accuracy",
            baselines=[Majority("the usual feeling")],
            console=running.console,
        )
        answers = ask(client, ASKED, "label")
        show(course, title="reviews", over=100, report=report, plot=plot, console=running.console, more={"answers": answers})
        lines = [f"  {label:9} {text}" for text, label in answers.items()]
        running.console.print("It now says:\n" + "\n".join(lines), markup=False)
        if not once:
            running.serve_on([f"curl -s {running.url}/predict -H 'Content-Type: text/plain' --data '{ASKED[0]}'"])
