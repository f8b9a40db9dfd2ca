"""`everlearn demo zeroshot`: 90 picture classes are described, 72 of them get labels, and all 90 are answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from service.client import Client, Feedback
from service.curves import draw_curves
from service.demo.pictures import LOOKS, Look, draw
from service.demo.running import Running
from service.templates import render

SIZE = 32  # pixels, as the template has it
HELD_BACK = 18  # classes that never get a label
LABELS = 4800
BATCH = 16  # labels in a request
CHECK_EVERY = 480  # labels
CHECKED = 4  # pictures of each class in a check

Pictures = list[tuple[Look, bytes]]


def config() -> str:
    """Return the configuration."""
    return render("zeroshot")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    with running, Client(running.url) as client:
        course = list(checks(client, np.random.default_rng(0), labels=LABELS, running=running))
        figures = {"labels": LABELS, "described_only": HELD_BACK, **course[-1]}
        report.write_text(json.dumps({**figures, "course": course}, indent=2) + "\n")
        names = {
            "unseen_accuracy": f"{HELD_BACK} classes only described",
            "seen_accuracy": f"{len(LOOKS) - HELD_BACK} with labels",
        }
        draw_curves(
            plot,
            {shown: [row[name] for row in course] for name, shown in names.items()},
            {},
            title="everlearn demo: classes known from their description alone",
            x=f"labels, in steps of {CHECK_EVERY}",
            y=f"accuracy among all {len(LOOKS)} classes",
            legend="accuracy on",
        )
        running.console.print(
            f"\n{len(LOOKS)} classes described, {LABELS} labels for {len(LOOKS) - HELD_BACK} of them. Among all {len(LOOKS)}:"
            f"\n  never labelled        {figures['unseen_accuracy']:.3f}"
            f"\n  labelled              {figures['seen_accuracy']:.3f}"
            f"\n  harmonic mean         {figures['harmonic_accuracy']:.3f}"
            f"\nreport in {report}, curves in {plot}"
        )
        if not once:
            new = json.dumps({"name": "black-circle-plain", "description": "a plain circle that is black"})
            running.serve_on([f"curl -s {running.url}/classes --json '{new}'", f"curl -s {running.url}/classes"])


def checks(client: Client, rng: np.random.Generator, *, labels: int, running: Running) -> Iterator[dict[str, Any]]:
    """Describe all classes, send labels for most, and yield how well both kinds are answered now and then."""
    order = rng.permutation(len(LOOKS))
    held_back, labelled = [LOOKS[i] for i in order[:HELD_BACK]], [LOOKS[i] for i in order[HELD_BACK:]]
    test = [(look, draw(look, rng, SIZE)) for look in LOOKS for _ in range(CHECKED)]
    with Progress(console=running.console) as progress:
        bar = progress.add_task("describing", total=len(LOOKS))
        for look in LOOKS:
            client.describe(look.name, look.description, wait=0)
            progress.advance(bar)
        progress.update(bar, description="labels", completed=0, total=labels)
        for sent in range(BATCH, labels + 1, BATCH):
            looks = [labelled[i] for i in rng.integers(len(labelled), size=BATCH)]
            teach(client, [(look, draw(look, rng, SIZE)) for look in looks])
            progress.advance(bar, BATCH)
            if sent % CHECK_EVERY == 0:
                yield {"labels": sent, **_check(client, test, held_back)}


def teach(client: Client, pictures: Pictures) -> None:
    """Send labelled pictures, and wait until they are served."""
    client.feedback((Feedback(label=look.name, instance=picture) for look, picture in pictures), wait=30)


def names_of(client: Client, pictures: Pictures) -> list[bool]:
    """Return for each picture whether it is answered right."""
    predictions = client.predict((picture for _, picture in pictures), top_k=1)
    return [each.answer["label"] == look.name for each, (look, _) in zip(predictions, pictures, strict=True)]


def encoded(picture: bytes) -> dict[str, str]:
    """Return a picture as it stands in JSON."""
    return {"b64": base64.b64encode(picture).decode()}


def _check(client: Client, test: Pictures, held_back: Sequence[Look]) -> dict[str, float]:
    right = np.array(names_of(client, test))
    unseen = np.array([look in held_back for look, _ in test])
    on_seen, on_unseen = float(right[~unseen].mean()), float(right[unseen].mean())
    harmonic = 2 * on_seen * on_unseen / max(on_seen + on_unseen, 1e-9)
    return {
        "seen_accuracy": round(on_seen, 4),
        "unseen_accuracy": round(on_unseen, 4),
        "harmonic_accuracy": round(harmonic, 4),
    }
