"""`everlearn demo recognition`: a hundred people, one photo each; then more of them, and strangers among them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.client import Client, Feedback
from service.demo.backbones import encoder
from service.demo.course import Item, follow, show
from service.demo.faces import Face, face, photo
from service.demo.running import Running
from service.demo.zeroshot import encoded
from service.templates import render

PEOPLE = 100
STREAM = 300
STRANGERS = 0.15  # share of the stream
SIZE = 160  # pixels
PIXELS = 16  # side that raw pixels are compared at
BATCH = 20


class Nearest:
    """Whose picture has the nearest raw pixels among all that have been seen."""

    name = "nearest raw pixels"

    def __init__(self) -> None:
        self._pixels: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        self._names: list[str] = []

    @property
    def known(self) -> set[str]:
        """Who has been seen."""
        return set(self._names)

    def answer(self, instance: Mapping[str, str]) -> dict[str, Any]:
        """Return who it is."""
        distances = ((np.stack(self._pixels) - _pixels(instance)) ** 2).sum(1)
        return {"label": self._names[int(distances.argmin())]}

    def learn(self, instance: Mapping[str, str], label: str) -> None:
        """Keep the picture."""
        self._pixels.append(_pixels(instance))
        self._names.append(label)


def config() -> str:
    """Return the configuration. Raises DemoFailed."""
    return render("recognition", {"encoder": encoder(), "input": {"kind": "image", "size": SIZE}})


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    rng = np.random.default_rng(0)
    people = [face(f"person {number}", rng) for number in range(PEOPLE)]
    first = [(encoded(photo(who, rng, SIZE)), who.name) for who in people]
    test = [(encoded(photo(who, rng, SIZE)), who.name) for who in people]
    nearest = Nearest()
    with running, Client(running.url) as client:
        with running.console.status(f"one photo of each of {PEOPLE} people"):
            for instance, name in first:
                nearest.learn(instance, name)
            _teach(client, first)
            one_photo = {
                "everlearn": _accuracy(test, [each.answer for each in client.predict((photo for photo, _ in test), top_k=1)]),
                nearest.name: _accuracy(test, [nearest.answer(instance) for instance, _ in test]),
            }

        def is_right(answer: Mapping[str, Any], name: str) -> float:
            return float(answer["label"] == (name if name in nearest.known else None))

        stream = list(_stream(people, rng))
        course = follow(client, stream, score=is_right, metric="accuracy", baselines=[nearest], console=running.console)
        more = {"one_photo_each": one_photo, "window": client.model().metrics["window"]}
        title = "who is it, or nobody that is known?"
        show(course, title=title, over=60, report=report, plot=plot, console=running.console, more=more)
        told = ", ".join(f"{name} {accuracy:.2f}" for name, accuracy in one_photo.items())
        window = more["window"]
        running.console.print(
            f"After one photo of each of {PEOPLE} people, accuracy on another photo: {told}\n"
            f"In the stream: {window['known_accuracy']:.3f} of those who were known were recognised,"
            f" {window['unknown_accuracy']:.3f} of the strangers were told to be strangers",
            markup=False,
        )
        if not once:
            running.serve_on([f"curl -s {running.url}/model"])


def _stream(people: list[Face], rng: np.random.Generator) -> Iterator[Item]:
    """Yield photos of people who are known by now, and now and then of somebody new."""
    known = list(people)
    for _ in range(STREAM):
        if rng.random() < STRANGERS:
            known.append(face(f"person {len(known)}", rng))
            who = known[-1]
        else:
            who = known[rng.integers(len(known))]
        yield encoded(photo(who, rng, SIZE)), who.name


def _teach(client: Client, items: list[Item]) -> None:
    for start in range(0, len(items), BATCH):
        client.feedback((Feedback(label=name, instance=photo) for photo, name in items[start : start + BATCH]), wait=30)


def _accuracy(items: list[Item], answers: Sequence[Mapping[str, Any]]) -> float:
    return float(np.mean([answer["label"] == name for answer, (_, name) in zip(answers, items, strict=True)]))


def _pixels(instance: Mapping[str, str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    picture = Image.open(io.BytesIO(base64.b64decode(instance["b64"]))).resize((PIXELS, PIXELS))
    return np.asarray(picture, dtype=np.float64).ravel()
