"""`everlearn demo summary`: letters of complaint, and the line that a clerk notes of each, learned one by one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics.chrf import CHRF

from service.client import Client
from service.demo.complaints import letters
from service.demo.course import ask, follow, show
from service.demo.running import Running
from service.templates import render

ITEMS = 640
ASKED = ("The lamp from order 7431 has the wrong colour. It was a present. Could somebody call me. Kosinik",)


class Lead:
    """The first sentence, which is hard to beat where news is summarised."""

    name = "its first sentence"

    def answer(self, instance: str) -> dict[str, Any]:
        """Return the sentence."""
        return {"text": instance.partition(".")[0]}

    def learn(self, instance: str, label: str) -> None:
        """Nothing to learn."""


def config() -> str:
    """Return the configuration."""
    return render("summary")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    stream = list(islice(letters(np.random.default_rng(0)), ITEMS))
    with running, Client(running.url) as client:
        course = follow(client, stream, score=similarity, metric="chrF", baselines=[Lead()], console=running.console)
        answers = ask(client, ASKED, "text")
        metrics = client.model().metrics
        more = {"answers": answers, "exact_match": {"all": metrics["exact"], "recent": metrics["window"]["exact"]}}
        show(course, title="letters, a line of each", over=100, report=report, plot=plot, console=running.console, more=more)
        running.console.print("\n".join(f"  {text}\n  -> {answer}" for text, answer in answers.items()), markup=False)
        if not once:
            running.serve_on([f"curl -s {running.url}/predict -H 'Content-Type: text/plain' --data '{ASKED[0]}'"])


def similarity(answer: Mapping[str, Any], label: str) -> float:
    """Return how much the texts have in common, as chrF (Popovic 2015), 0..1."""
    return float(CHRF().sentence_score(answer["text"], [label]).score) / 100
