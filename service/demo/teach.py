"""`everlearn demo teach`: a new picture class by a sentence and five photos, while the service runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from rich.progress import track

from service.client import Client
from service.curves import draw_curves
from service.demo.backbones import encoder
from service.demo.pictures import LOOKS, Look, Rng, draw
from service.demo.running import Running
from service.demo.zeroshot import names_of, teach
from service.templates import render

SIZE = 96  # pixels
KNOWN = 72  # classes that it knows already
PHOTOS = 5  # of each class
NEW = 6  # classes that are taught, one after the other
CHECKED = 10  # other pictures of the new class in each check


def config() -> str:
    """Return the configuration: transfer, zero-shot and online learning together. Raises DemoFailed."""
    return render("teach", {"encoder": encoder(), "input": {"kind": "image", "size": SIZE}})


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(LOOKS))
    known, new = [LOOKS[i] for i in order[:KNOWN]], [LOOKS[i] for i in order[KNOWN : KNOWN + NEW]]
    with running, Client(running.url) as client:
        _prepare(client, known, rng, running)
        lessons = [_lesson(client, look, rng, running) for look in new]
        means = np.mean([right for right, _ in lessons], axis=0).round(3).tolist()
        seconds = float(np.mean([taken for _, taken in lessons]))
        old = [(look, draw(look, rng, SIZE)) for look in known]
        figures = {
            "known_classes": KNOWN,
            "taught_classes": NEW,
            "accuracy_after_sentence_and_photos": means,
            "accuracy_on_the_others": round(float(np.mean(names_of(client, old))), 3),
            "seconds_per_class": round(seconds, 2),
        }
        report.write_text(json.dumps(figures, indent=2) + "\n")
        draw_curves(
            plot,
            {"mean": means, **{look.name: right for look, (right, _) in zip(new, lessons, strict=True)}},
            {1: "sentence", PHOTOS + 1: f"{PHOTOS} photos"},
            title=f"everlearn demo: {NEW} new classes among {KNOWN} that are known",
            x="1: after the sentence, then after each photo",
            y="accuracy on other pictures of the class",
            legend="class",
        )
        running.console.print(
            f"\n{NEW} new classes, each by a sentence and {PHOTOS} photos, among {KNOWN} others; accuracy on other pictures:"
            f"\n  after the sentence    {means[0]:.2f}"
            f"\n  after photo 1, 2, ... {', '.join(f'{value:.2f}' for value in means[1:])}"
            f"\n  the classes before    {figures['accuracy_on_the_others']:.2f} at the end"
            f"\n  time                  {seconds:.1f} s a class, each step served before the next"
            f"\nreport in {report}, curves in {plot}"
        )
        if not once:
            said = json.dumps({"name": "black-circle-plain", "description": "a plain circle that is black"})
            running.serve_on([f"curl -s {running.url}/classes --json '{said}'", f"curl -s {running.url}/classes"])


def _prepare(client: Client, known: list[Look], rng: Rng, running: Running) -> None:
    """Describe the classes that it is to know, and send photos of each."""
    for look in known:
        _describe(client, look)
    photos = [(look, draw(look, rng, SIZE)) for look in known for _ in range(PHOTOS)]
    shuffled = [photos[i] for i in rng.permutation(len(photos))]
    for start in track(range(0, len(photos), KNOWN // 6), "classes that it knows", console=running.console):
        teach(client, shuffled[start : start + KNOWN // 6])


def _lesson(client: Client, look: Look, rng: Rng, running: Running) -> tuple[list[float], float]:
    """Teach a class; return the accuracy on it after the sentence and after each photo, and the seconds that took."""
    test = [(look, draw(look, rng, SIZE)) for _ in range(CHECKED)]
    started = time.perf_counter()
    _describe(client, look)
    taken = time.perf_counter() - started
    right = [float(np.mean(names_of(client, test)))]
    for _ in track(range(PHOTOS), look.description, console=running.console):
        photo = (look, draw(look, rng, SIZE))
        started = time.perf_counter()
        teach(client, [photo])
        taken += time.perf_counter() - started
        right.append(float(np.mean(names_of(client, test))))
    return right, taken


def _describe(client: Client, look: Look) -> None:
    client.describe(look.name, look.description)
