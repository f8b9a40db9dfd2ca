"""`everlearn demo transfer`: a pretrained backbone, adapted label by label, beside a network that starts from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from service.client import Client
from service.curves import draw_curves, sliding_mean
from service.demo.backbones import encoder
from service.demo.course import predicted
from service.demo.pictures import LOOKS, Look, draw
from service.demo.running import Running
from service.demo.zeroshot import teach
from service.templates import render

SIZE = 96  # pixels
CLASSES = 12
ITEMS = 360
LAST = 100
FROM_NOTHING: dict[str, dict[str, Any]] = {"encoder": {"name": "convolutional"}, "input": {"kind": "image", "size": 32}}

Pictures = list[tuple[Look, bytes]]


def config() -> str:
    """Return the configuration of the pretrained one. Raises DemoFailed."""
    return render("transfer", {"encoder": encoder(), "input": {"kind": "image", "size": SIZE}})


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    rng = np.random.default_rng(0)
    looks = [LOOKS[i] for i in rng.permutation(len(LOOKS))[:CLASSES]]
    stream = [(look, draw(look, rng, SIZE)) for look in (looks[i] for i in rng.integers(CLASSES, size=ITEMS))]
    with Running(render("transfer", FROM_NOTHING), data=None, port=0, console=running.console) as other:
        from_nothing = _send(other, stream, "from nothing")
    with running:
        pretrained = _send(running, stream, "pretrained")
        figures: dict[str, Any] = {
            "items": ITEMS,
            "classes": CLASSES,
            **_told(pretrained=pretrained, from_nothing=from_nothing),
        }
        report.write_text(json.dumps(figures, indent=2) + "\n")
        curves = {"pretrained, frozen": sliding_mean(pretrained, 50), "a network from nothing": sliding_mean(from_nothing, 50)}
        draw_curves(
            plot,
            curves,
            {},
            title=f"everlearn demo: {CLASSES} classes of pictures",
            x="pictures, each predicted before its label was sent",
            y="accuracy over the last 50",
            legend="backbone",
        )
        running.console.print(
            f"\n{ITEMS} pictures of {CLASSES} classes, each predicted, then learned from; accuracy, and over the last {LAST}:"
            f"\n  pretrained, frozen    {figures['pretrained']['accuracy']:.3f}, {figures['pretrained']['last']:.3f}"
            f"\n  from nothing          {figures['from_nothing']['accuracy']:.3f}, {figures['from_nothing']['last']:.3f}"
            f"\nreport in {report}, curves in {plot}"
        )
        if not once:
            running.serve_on([f"curl -s {running.url}/model", f"curl -s {running.url}/classes"])


def _send(running: Running, stream: Pictures, name: str) -> list[bool]:
    """Predict each picture, then send its label; return which were answered right."""
    right = []
    with Client(running.url) as client:
        for look, picture in track(stream, name, console=running.console):
            prediction = predicted(client, picture)
            right.append(prediction is not None and prediction.answer["label"] == look.name)
            teach(client, [(look, picture)])
    return right


def _told(**courses: list[bool]) -> dict[str, dict[str, float]]:
    return {
        name: {"accuracy": round(float(np.mean(right)), 4), "last": round(float(np.mean(right[-LAST:])), 4)}
        for name, right in courses.items()
    }
