"""How well the defaults learn: one pass over each stream, each item predicted before it is learned from.

`python -m benchmarks.streams [--seeds N] [--against river] [--report F.jsonl] [STREAM ...]` prints what came of each
stream, for every learner. All streams are learned with the same settings; the first seed is run twice, and both runs must
end in the same bits. After the warm-up, labels come in groups of `step_items`, as they do where they are not sent one by one.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from river import datasets
from river.datasets import synth
from sklearn.datasets import load_diabetes, load_digits

from models.base import Scores
from models.heads.classification import Classification
from models.metrics import calibration_error
from service.evaluate.courses import Course, OwnCourse, PeerCourse
from service.evaluate.peers import PEERS
from service.evaluate.run import own_course
from service.learning.update import Item, LearningState
from service.settings import LearningSettings, Settings
from tests.running import ROOT

Rows = Iterable[tuple[dict[str, Any], Any]]

WEATHER = ROOT.parent / "shared" / "data" / "weather.csv"


def sea() -> Rows:
    before, after = synth.SEA(variant=0, noise=0.1, seed=1), synth.SEA(variant=2, noise=0.1, seed=2)
    return synth.ConceptDriftStream(before, after, seed=3, position=10000, width=500).take(20000)


def agrawal() -> Rows:
    nominal = ("elevel", "car", "zipcode")
    return (({name: str(v) if name in nominal else v for name, v in row.items()}, label) for row, label in agrawal_numbers())


def agrawal_numbers() -> Rows:
    """The same with the codes of its nominal columns as numbers: River's trees do better on these."""
    return chain(*(synth.Agrawal(classification_function=each, seed=seed).take(10000) for each, seed in ((0, 1), (4, 2))))


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


def rare() -> Rows:
    """One item in a hundred is of the rare class: what lies beyond a plane that turns all the time."""
    rng = np.random.default_rng(11)
    for index in range(20000):
        numbers = rng.normal(size=10)
        angle = 2 * np.pi * index / 20000
        score = numbers[0] * np.cos(angle) + numbers[1] * np.sin(angle)
        yield {f"x{column}": float(number) for column, number in enumerate(numbers)}, "rare" if score > 2.326 else "common"


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
    "agrawal_numbers": ("classification", agrawal_numbers),
    "rbf": ("classification", rbf),
    "led": ("classification", led),
    "weather": ("classification", weather),
    "friedman": ("regression", friedman),
    "diabetes": ("regression", diabetes),
    "digits": ("classification", digits),
    "incremental": ("classification", incremental),
    "rare": ("classification", rare),
}
BALANCED = {"rare": {"everlearn, balance = 1": {"balance": 1.0}, "plain mlp": {"experts": ["mlp"]}}}
"""Heads that are run beside the defaults, by stream and name."""

AGRAWAL_CHANGE = 10_000


class Untempered:
    """The calibration error that the mix would have if its weights added up to 1, noted while a course is taken."""

    def __init__(self, head: Classification) -> None:
        self._head = head
        self._scores = head.scores
        self._confidence: list[float] = []
        self._accuracy: list[float] = []
        head.scores = self._noted  # type: ignore[method-assign]

    def error(self) -> float:
        return calibration_error(np.array(self._confidence), np.array(self._accuracy))

    def _noted(self, outputs: torch.Tensor | None, labels: Any) -> Scores:
        if outputs is not None:
            mix = copy.deepcopy(self._head.mix)
            mix.weights /= mix.weights.sum()
            best, predicted = mix(outputs).exp().max(1)
            self._confidence += best.tolist()
            self._accuracy += (predicted == self._head.targets(labels)).double().tolist()
        return self._scores(outputs, labels)


def items_of(state: LearningState, rows: Rows, task: str) -> Iterator[Item]:
    for row, label in rows:
        record = {str(name): value if isinstance(value, str) else float(value) for name, value in row.items()}
        yield Item(state.model.input.prepare(record), float(label) if task == "regression" else str(label))


def new_course(name: str, stream: str, seed: int, head: dict[str, Any]) -> OwnCourse:
    task, rows = STREAMS[stream]
    row = next(iter(rows()))[0]
    fields = {str(name): "string" if isinstance(value, str) else "number" for name, value in row.items()}
    parts = {"input": {"kind": "record", "fields": fields}, "encoder": {"name": "tabular"}, "head": {"name": task, **head}}
    return own_course(name, Settings(model=parts, learning=LearningSettings(seed=seed)))


def take_all(own: OwnCourse, stream: str) -> None:
    task, rows = STREAMS[stream]
    items = items_of(own.state, rows(), task)
    while group := list(islice(items, own.appetite)):
        own.take(group)


def own_figures(name: str, stream: str, seed: int = 0, head: dict[str, Any] | None = None) -> dict[str, Any]:
    own = new_course(name, stream, seed, head or {})
    own_head = own.state.model.head
    untempered = Untempered(own_head) if isinstance(own_head, Classification) else None
    take_all(own, stream)
    bits = hashlib.sha256(own.state.model_bytes() + own.state.learner_bytes()).hexdigest()[:12]
    figures = {"seed": seed, **_figures(own, stream), "bits": bits, "drifts": own.drifts, **own.metrics()}
    if untempered:
        figures["ece_untempered"] = untempered.error()
    if stream == "incremental":
        figures["value"] = _accuracy(own.state, list(items_of(own.state, held_out(), "classification")))
    if stream.startswith("agrawal"):
        figures["recovered_after"] = _recovery(own.scores)
    if stream == "rare":
        figures["recall"] = own.state.by_class()["rare"]["accuracy"]
    return figures


def peer_figures(peer: PeerCourse, own: OwnCourse, stream: str) -> dict[str, Any]:
    task, rows = STREAMS[stream]
    for item in items_of(own.state, rows(), task):
        peer.take([item])
    figures = _figures(peer, stream)
    if stream == "rare":
        hits = np.array(peer.scores)
        is_rare = np.array([label == "rare" for _, label in rows()])
        figures |= {"recall": hits[is_rare].mean(), "balanced_accuracy": (hits[is_rare].mean() + hits[~is_rare].mean()) / 2}
    if stream == "incremental":
        figures["value"] = float(np.mean([peer.answer(item) == item.label for item in items_of(own.state, held_out(), task)]))
    if stream.startswith("agrawal"):
        figures["recovered_after"] = _recovery(peer.scores)
    return figures


def _figures(course: Course, stream: str) -> dict[str, Any]:
    return {
        "stream": stream,
        "learner": course.name,
        "items": len(course.scores),
        "value": float(np.mean(course.scores)),
        "ms_per_item": 1000 * course.seconds / len(course.scores),
    }


def _recovery(scores: list[float], window: int = 500) -> int | None:
    """Return after how many items the accuracy over the latest ones is back within two points of before the change."""
    before = float(np.mean(scores[AGRAWAL_CHANGE - 2000 : AGRAWAL_CHANGE]))
    after = np.convolve(scores[AGRAWAL_CHANGE:], np.ones(window) / window, "valid")
    back = np.flatnonzero(after >= before - 0.02)
    return int(back[0]) + window if len(back) else None


def _accuracy(state: LearningState, items: list[Item]) -> float:
    with torch.no_grad():
        outputs = state.model(state.model.collate([item.prepared for item in items]))
        answers = state.model.head.answers(outputs, 1)
    return float(np.mean([answer["label"] == item.label for answer, item in zip(answers, items, strict=True)]))


def run(stream: str, seeds: int, against: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the figures of every learner on a stream."""
    for seed in range(seeds):
        yield own_figures("everlearn", stream, seed)
    if seeds > 1:
        yield own_figures("everlearn, again", stream, 0)
    for name, head in BALANCED.get(stream, {}).items():
        yield own_figures(name, stream, head=head)
    task, rows = STREAMS[stream]
    classes = sorted({str(label) for _, label in rows()}) if task == "classification" else []
    own = new_course("", stream, 0, {})
    for family in against:
        for name, peer in PEERS[family](task, classes).items():
            yield peer_figures(PeerCourse(name, peer, task), own, stream)


def main() -> None:
    """Run the streams that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("streams", nargs="*", default=[], help=", ".join(STREAMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--against", action="append", default=[], choices=list(PEERS))
    parser.add_argument("--report", type=Path, help="a file that gets a line of JSON for each learner and stream")
    arguments = parser.parse_args()
    for stream in arguments.streams or STREAMS:
        if stream == "weather" and not WEATHER.exists():
            print("weather      skipped: ../shared/data not there")
            continue
        for figures in run(stream, arguments.seeds, arguments.against):
            shown = {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in figures.items()}
            print("  ".join(f"{key} {value}" for key, value in shown.items()), flush=True)
            if arguments.report:
                with arguments.report.open("a") as file:
                    file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
