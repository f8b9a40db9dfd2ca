"""`everlearn demo sentiment`: texts in two languages, learned one by one; "not bad" has to become positive."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.progress import track

from service.curves import draw_curves, sliding_mean
from service.demo.reviews import reviews
from service.demo.running import Running
from service.templates import render

ITEMS = 1200
LAST = 200  # items in `accuracy_last_200`
ASKED = ("The plot was not bad at all.", "Der Film war überhaupt nicht überzeugend.", "A joy, and fast!")


def config() -> str:
    """Return the configuration."""
    return render("text")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    stream = list(islice(reviews(np.random.default_rng(0)), ITEMS))
    with running, httpx.Client(base_url=running.url, timeout=60) as client:
        right = [_judge_and_teach(client, *each) for each in track(stream, "reviews", console=running.console)]
        answers = client.post("/predict", json={"instances": list(ASKED)}).raise_for_status().json()["predictions"]
        figures = {
            "items": ITEMS,
            "accuracy": round(float(np.mean(right)), 4),
            f"accuracy_last_{LAST}": round(float(np.mean(right[-LAST:])), 4),
            "answers": {text: answer["label"] for text, answer in zip(ASKED, answers, strict=True)},
        }
        report.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
        curves = {"last 100": sliding_mean(right, 100), "all so far": sliding_mean(right, ITEMS)}
        draw_curves(
            plot,
            curves,
            {},
            title=f"everlearn demo: {ITEMS} reviews",
            x="reviews, each judged first",
            y="accuracy",
            legend="over",
        )
        _summarise(running, figures, report, plot)
        if not once:
            running.serve_on([f"curl -s {running.url}/predict -H 'Content-Type: text/plain' --data '{ASKED[0]}'"])


def _judge_and_teach(client: httpx.Client, text: str, feeling: str) -> bool:
    answer = client.post("/predict", json={"instances": [text]})
    right = answer.status_code == httpx.codes.OK and answer.json()["predictions"][0]["label"] == feeling
    feedback = {"feedback": [{"instance": text, "label": feeling}]}
    client.post("/feedback", json=feedback, headers={"Prefer": "wait=30"}).raise_for_status()
    return right


def _summarise(running: Running, figures: dict[str, Any], report: Path, plot: Path) -> None:
    lines = [f"  {label:9} {text}" for text, label in figures["answers"].items()]
    last = figures[f"accuracy_last_{LAST}"]
    running.console.print(
        f"\n{ITEMS} reviews, each predicted, then learned from:"
        f"\n  accuracy              {figures['accuracy']:.3f} over all, {last:.3f} over the last {LAST}"
        "\nIt now says:\n" + "\n".join(lines) + f"\nreport in {report}, learning curve in {plot}",
        markup=False,
    )
