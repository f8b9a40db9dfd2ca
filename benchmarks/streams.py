"""How well the defaults learn: one pass over each stream, each item predicted before it is learned from.

`python -m benchmarks.streams [--seed N] [STREAM ...]` prints a line for each stream. Every stream is learned with the same
settings. After the warm-up, labels come in groups of `step_items`, as they do where they are not sent one by one.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from river import datasets
from river.datasets import synth
from sklearn.datasets import load_diabetes, load_digits

from models.registry import build_model
from service.learner import use_deterministic_torch
from service.learning.update import Item, LearningState
from service.settings import LearningSettings
from tests.running import ROOT

Rows = Iterable[tuple[dict[str, Any], Any]]

WEATHER = ROOT.parent / "shared" / "data" / "weather.csv"


def sea() -> Rows:
    before, after = synth.SEA(variant=0, noise=0.1, seed=1), synth.SEA(variant=2, noise=0.1, seed=2)
    return synth.ConceptDriftStream(before, after, seed=3, position=10000, width=500).take(20000)


def agrawal() -> Rows:
    parts = (synth.Agrawal(classification_function=function, seed=seed).take(10000) for function, seed in ((0, 1), (4, 2)))
    nominal = ("elevel", "car", "zipcode")
    return (({name: str(v) if name in nominal else v for name, v in row.items()}, label) for row, label in chain(*parts))


def rbf() -> Rows:
    shape = {"n_classes": 4, "n_features": 10, "n_centroids": 50}
    return synth.RandomRBFDrift(seed_model=42, seed_sample=42, change_speed=0.001, n_drift_centroids=50, **shape).take(20000)


def led() -> Rows:
    return synth.LEDDrift(seed=112, noise_percentage=0.10, irrelevant_features=True, n_drift_features=7).take(20000)


def weather() -> Rows:
    with WEATHER.open() as file:
        for row in csv.DictReader(file):
            label = row.pop("target")
            yield {name: float(value) for name, value in row.items()}, label


def friedman() -> Rows:
    return synth.FriedmanDrift(drift_type="gra", position=(3500, 7000), transition_window=500, seed=42).take(10000)


def diabetes() -> Rows:
    pictures, labels = load_diabetes(return_X_y=True)
    return _named(pictures, labels)


def digits() -> Rows:
    pictures, labels = _shuffled_digits()
    return _named(pictures[360:], labels[360:])


def incremental() -> Rows:
    """Five tasks of two digits, one after the other."""
    pictures, labels = _shuffled_digits()
    order = np.argsort(labels[360:] // 2, kind="stable")
    return _named(pictures[360:][order], labels[360:][order])


def held_out() -> Rows:
    """The digits that `incremental` is judged on at its end."""
    pictures, labels = _shuffled_digits()
    return _named(pictures[:360], labels[:360])


def _shuffled_digits() -> tuple[Any, Any]:
    pictures, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    return pictures[order], labels[order]


def _named(numbers: Any, labels: Any) -> Rows:
    names = [f"x{index}" for index in range(numbers.shape[1])]
    return ((dict(zip(names, row.tolist(), strict=True)), label) for row, label in zip(numbers, labels.tolist(), strict=True))


STREAMS: dict[str, tuple[str, Callable[[], Rows]]] = {
    "phishing": ("classification", datasets.Phishing),
    "bananas": ("classification", datasets.Bananas),
    "segments": ("classification", datasets.ImageSegments),
    "sea": ("classification", sea),
    "agrawal": ("classification", agrawal),
    "rbf": ("classification", rbf),
    "led": ("classification", led),
    "weather": ("classification", weather),
    "friedman": ("regression", friedman),
    "diabetes": ("regression", diabetes),
    "digits": ("classification", digits),
    "incremental": ("classification", incremental),
}


def _fields(row: dict[str, Any]) -> dict[str, str]:
    return {str(name): "string" if isinstance(value, str) else "number" for name, value in row.items()}


def _prepared(state: LearningState, rows: Rows, task: str) -> Iterator[Item]:
    for row, label in rows:
        record = {str(name): value if isinstance(value, str) else float(value) for name, value in row.items()}
        yield Item(state.model.input.prepare(record), float(label) if task == "regression" else str(label))


def run(name: str, seed: int) -> dict[str, Any]:
    """Learn a stream and return its figures."""
    task, rows = STREAMS[name]
    fields = _fields(next(iter(rows()))[0])
    spec = {"input": {"kind": "record", "fields": fields}, "encoder": {"name": "tabular"}, "head": {"name": task}}
    settings = LearningSettings(seed=seed)
    state = LearningState(build_model(spec, seed=seed), settings)
    items: dict[int, Item] = {}
    stream = _prepared(state, rows(), task)
    seconds = 0.0
    while group := list(islice(stream, 1 if len(items) < settings.warm_up else settings.step_items)):
        seqs = range(len(items) + 1, len(items) + len(group) + 1)
        items.update(zip(seqs, group, strict=True))
        started = time.perf_counter()
        state.update(state.plan(seqs), items)
        seconds += time.perf_counter() - started
    metrics = state.metrics()
    value = metrics[state.model.head.metric]
    if name == "incremental":
        value = _accuracy(state, list(_prepared(state, held_out(), task)))
    figures = {"ms per item": 1000 * seconds / len(items), "drifts": metrics["drift"]["events"], **metrics["experts"]}
    return {"items": len(items), "value": value, **figures}


def _accuracy(state: LearningState, items: list[Item]) -> float:
    with torch.no_grad():
        outputs = state.model(state.model.collate([item.prepared for item in items]))
        answers = state.model.head.answers(outputs, 1)
    return float(np.mean([answer["label"] == item.label for answer, item in zip(answers, items, strict=True)]))


def main() -> None:
    """Run the streams that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("streams", nargs="*", default=[], help=", ".join(STREAMS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    use_deterministic_torch(1)
    for name in arguments.streams or STREAMS:
        if name == "weather" and not WEATHER.exists():
            print("weather      skipped: ../shared/data not there")
            continue
        figures = run(name, arguments.seed)
        print(f"{name:12}", "  ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
