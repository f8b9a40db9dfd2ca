"""`everlearn demo detection`: scenes of shapes, found and named better from picture to picture."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from models.boxes import as_boxes, right_ones
from service.client import Client
from service.demo.course import follow, show
from service.demo.running import Running
from service.demo.scenes import scenes
from service.demo.zeroshot import encoded
from service.templates import render

ITEMS = 1200
SIZE = 128  # pixels
SHOWN, SCALE = 6, 2  # scenes that are drawn, and how much larger
COLOUR = "#ff3030"


class Blobs:
    """What stands out from the ground, boxed; each is taken for the most frequent shape so far."""

    name = "what stands out, as the most frequent shape"

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def answer(self, instance: Mapping[str, str]) -> dict[str, Any]:
        """Return the boxes of connected pixels that differ from the ground."""
        with Image.open(io.BytesIO(base64.b64decode(instance["b64"]))) as picture:
            pixels = ndimage.gaussian_filter(np.asarray(picture, dtype=np.float64), (1.5, 1.5, 0))
        differs = np.abs(pixels - np.median(pixels, axis=(0, 1))).max(2) > 20
        places, _ = ndimage.label(differs)
        boxes = [[cols.start, rows.start, cols.stop, rows.stop] for rows, cols in ndimage.find_objects(places)]
        label = self._counts.most_common(1)[0][0] if self._counts else ""
        return {"boxes": boxes, "labels": [label] * len(boxes)}

    def learn(self, instance: Mapping[str, str], label: Mapping[str, Any]) -> None:
        """Count the shapes."""
        self._counts.update(label["labels"])


def config() -> str:
    """Return the configuration."""
    return render("detection", {"input": {"kind": "scene", "size": SIZE}})


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its pictures."""
    rng = np.random.default_rng(0)
    stream = [(encoded(picture), label) for picture, label in islice(scenes(rng, SIZE), ITEMS)]
    with running, Client(running.url) as client:
        course = follow(client, stream, score=f1, metric="F1 of a scene", baselines=[Blobs()], console=running.console)
        window = client.model().metrics["window"]
        title, drawn = "shapes in scenes", plot.with_stem(f"{plot.stem}-scenes")
        show(course, title=title, over=100, report=report, plot=plot, console=running.console, more={"window": window})
        fresh = [picture for picture, _ in islice(scenes(rng, SIZE), SHOWN)]
        _sheet(fresh, [found.answer for found in client.predict(fresh)]).save(drawn)
        running.console.print(f"mAP at an overlap of 0.5, last {window['items']}: {window['map_50']:.3f}; scenes in {drawn}")
        if not once:
            running.serve_on([f"curl -s {running.url}/predict -H 'Content-Type: image/png' --data-binary @scene.png"])


def f1(answer: Mapping[str, Any], label: Mapping[str, Any]) -> float:
    """Return the F1 of the boxes of one picture; nothing where there is nothing is right."""
    right = right_ones(as_boxes(answer["boxes"]), answer["labels"], as_boxes(label["boxes"]), label["labels"])
    total = len(right) + len(label["labels"])
    return 2 * sum(right) / total if total else 1.0


def _sheet(pictures: Sequence[bytes], answers: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Draw what was found into pictures, side by side."""
    side = SCALE * SIZE
    sheet = Image.new("RGB", (side * len(pictures), side))
    for column, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
        with Image.open(io.BytesIO(picture)) as opened:
            scene = opened.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        pen = ImageDraw.Draw(scene)
        for box, label, score in zip(answer["boxes"], answer["labels"], answer["scores"], strict=True):
            corners = [SCALE * each for each in box]
            pen.rectangle(corners, outline=COLOUR, width=2)
            pen.text(
                (corners[0] + 3, corners[1] + 2), f"{label} {score:.2f}", fill="white", stroke_width=1, stroke_fill="black"
            )
        sheet.paste(scene, (column * side, 0))
    return sheet
