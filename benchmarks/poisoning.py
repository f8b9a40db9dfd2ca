"""What a poisoned source does to the model, and honest drift to its recovery, with the gate and without.

    python -m benchmarks.poisoning [--items N] [--seeds N] [--update N]

Ten sources label handwritten digits (scikit-learn's, each shown several times with other noise). The learner is the real one,
with its store on the disk, in updates of a few items. Final accuracy is that of the last version on digits nobody labelled.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from service.settings import GateSettings
from service.store import NewEntry
from service.templates import TEMPLATES
from tests.workshop import Workshop

SOURCES = 10
TESTED = 600
GATE = GateSettings()
NONE = GateSettings(holdout=0.0, source_share=0.0, doubt=False, effort=0.0)

Point = tuple[list[float], int]
Told = tuple[list[float], str, str]  # numbers, label, source


def points(rng: np.random.Generator, rows: np.ndarray[Any, Any]) -> Iterator[Point]:
    pictures, labels = load_digits(return_X_y=True)
    while True:
        for row in rng.permutation(rows):
            yield (pictures[row] + rng.normal(0, 1.5, 64)).round(2).tolist(), int(labels[row])


def told(rng: np.random.Generator, stream: Iterator[Point], items: int, attack: Callable[[int], float]) -> Iterator[Told]:
    """Yield what the sources say; source 0 labels each digit as the next one where `attack` gives it a part of the traffic."""
    for number, (numbers, label) in enumerate(islice(stream, items)):
        part = attack(number)
        if rng.random() < (part or 1 / SOURCES):
            yield numbers, str((label + 1) % 10 if part else label), "source 0"
        else:
            yield numbers, str(label), f"source {rng.integers(1, SOURCES)}"


def drifting(rng: np.random.Generator, stream: Iterator[Point], items: int) -> Iterator[Told]:
    for number, (numbers, label) in enumerate(islice(stream, items)):
        yield numbers, str(label if number < items // 2 else (label + 3) % 10), f"source {rng.integers(SOURCES)}"


def taught(stream: Iterator[Told], update: int, gate: GateSettings, tested: list[Point]) -> tuple[float, list[float]]:
    """Learn a stream; return the final accuracy, and whether each item was predicted right before it was learned."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Workshop(Path(folder), 256, keep=2, model=TEMPLATES["digits"], gate=gate)) as workshop,
    ):
        learner = workshop.learner()
        right: list[float] = []
        while batch := list(islice(stream, update)):
            model = learner._state.model
            right += hits(model, [(numbers, int(label)) for numbers, label, _ in batch])
            workshop.log.append(
                [
                    NewEntry(instance=json.dumps(numbers).encode(), label=json.dumps(label), digest=b"", source=source)
                    for numbers, label, source in batch
                ]
            ).result(60)
            learner.step()
        learner._commits.finish()
        return mean(hits(learner._state.model, tested)), right


def hits(model: Any, given: list[Point]) -> list[float]:
    if not model.head.ready:
        return [0.0] * len(given)
    with torch.no_grad():
        answers = model.head.answers(model(model.collate([numbers for numbers, _ in given])), 1)
    return [float(answer["label"] == str(label)) for answer, (_, label) in zip(answers, given, strict=True)]


def back_after(right: list[float], window: int = 100) -> float:
    """Return how many items after the change accuracy is back at 90 % of what it was before."""
    half = len(right) // 2
    before = mean(right[half - 500 : half])
    for end in range(half + window, len(right)):
        if mean(right[end - window : end]) >= 0.9 * before:
            return end - half
    return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--update", type=int, default=8)
    options = parser.parse_args()
    half = options.items // 2
    attacks: dict[str, Callable[[int], float]] = {
        "clean": lambda _: 0.0,
        "one of ten, from the start": lambda _: 0.1,
        "half of all traffic, from the start": lambda _: 0.5,
        "one of ten, then half of all traffic": lambda number: 0.1 if number < half else 0.5,
        "clean, then half of all traffic": lambda number: 0.0 if number < half else 0.5,
    }
    table = Table("", "with the gate", "without", title=f"{options.items} items in updates of {options.update}")
    rows = {name: partial(told_of, attack, options) for name, attack in attacks.items()}
    for name, measure in {**rows, "items until drift is recovered from": partial(drift_told, options)}.items():
        figures = [measure(gate) for gate in (GATE, NONE)]
        print(name, *figures, sep=" | ", flush=True)
        table.add_row(name, *figures)
    Console().print(table)


def split(seed: int) -> tuple[np.random.Generator, Iterator[Point], list[Point]]:
    rng = np.random.default_rng(seed)
    rows = rng.permutation(1797)
    return rng, points(rng, rows[TESTED:]), list(islice(points(rng, rows[:TESTED]), TESTED))


def told_of(attack: Callable[[int], float], options: argparse.Namespace, gate: GateSettings) -> str:
    finals = []
    for seed in range(options.seeds):
        rng, stream, tested = split(seed)
        finals.append(taught(told(rng, stream, options.items, attack), options.update, gate, tested)[0])
    return f"{mean(finals):.4f} ({', '.join(f'{each:.3f}' for each in finals)})"


def drift_told(options: argparse.Namespace, gate: GateSettings) -> str:
    counts = []
    for seed in range(options.seeds):
        rng, stream, tested = split(seed)
        counts.append(back_after(taught(drifting(rng, stream, options.items), options.update, gate, tested)[1]))
    return f"{mean(counts):.0f} ({', '.join(f'{each:.0f}' for each in counts)})"


if __name__ == "__main__":
    main()
