"""`everlearn demo digits`: a real service, a real stream over HTTP, and what came of it."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from service.client import Client
from service.curves import draw_curves, sliding_mean
from service.demo.course import labelled, predicted
from service.demo.running import DemoFailed, Running
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from service.templates import render
from service.verify import consumed, verify_versions

SEED = 0
LAST = 500  # items in `accuracy_last_500`
LAG_EVERY = 50  # items between two looks at /model

Digit = tuple[list[float], int]


@dataclass(slots=True)
class Stream:
    """What was sent and what came back."""

    correct: list[bool] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    """The version that made each prediction."""
    seqs: list[int] = field(default_factory=list)
    predict_ms: list[float] = field(default_factory=list)
    feedback_to_served_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0


def config() -> str:
    """Return the configuration."""
    return render("digits")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture. Raises DemoFailed."""
    digits = _digits()
    with running:
        stream = _send(running.url, digits, running.console)
        figures = _figures(stream, running.data)
        report.write_text(json.dumps(figures, indent=2) + "\n")
        _draw(stream, figures["versions"], plot)
        _summarise(figures, report, plot, running.console)
        if not once:
            running.serve_on(_curls(running.url, digits[0]))


def _digits() -> list[Digit]:
    """Return scikit-learn's 1,797 digits in seeded order: 64 numbers in 0..16 and the label."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise DemoFailed("the demo needs scikit-learn and matplotlib: pip install 'everlearn[demo]'") from exc
    pictures, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    return [(pictures[index].tolist(), int(labels[index])) for index in order]


def _send(url: str, digits: Sequence[Digit], console: Console) -> Stream:
    """Predict each digit, then send its label by prediction id and wait until it is served."""
    stream = Stream()
    started = time.perf_counter()
    recent: deque[float] = deque([started], maxlen=200)
    with Client(url) as client, _progress(console) as progress:
        bar = progress.add_task("digits", total=len(digits), accuracy=0.0, version=0, lag=0, rate=0.0)
        for number, (instance, label) in enumerate(digits):
            _send_one(client, stream, instance, str(label))
            recent.append(time.perf_counter())
            if number % LAG_EVERY == 0:
                _show(progress, bar, client, stream, 2 * (len(recent) - 1) / (recent[-1] - recent[0]))
            progress.advance(bar)
        _show(progress, bar, client, stream, 2 * len(digits) / (time.perf_counter() - started))
    stream.seconds = time.perf_counter() - started
    return stream


def _send_one(client: Client, stream: Stream, instance: list[float], label: str) -> None:
    began = time.perf_counter()
    prediction = predicted(client, instance)
    stream.predict_ms.append(1000 * (time.perf_counter() - began))
    # Before the first label no class is known: a wrong answer.
    stream.correct.append(prediction is not None and prediction.answer["label"] == label)
    stream.versions.append(0 if prediction is None else prediction.model_version)
    began = time.perf_counter()
    taken = client.feedback([labelled(instance, label, prediction)], wait=30)
    stream.seqs += taken.seqs
    if taken.model_version is not None:
        stream.feedback_to_served_ms.append(1000 * (time.perf_counter() - began))


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("accuracy {task.fields[accuracy]:.3f}  version {task.fields[version]}  lag {task.fields[lag]}"),
        TextColumn("{task.fields[rate]:.0f} requests/s"),
        console=console,
    )


def _show(progress: Progress, bar: TaskID, client: Client, stream: Stream, rate: float) -> None:
    model = client.model()
    progress.update(bar, accuracy=float(np.mean(stream.correct)), version=model.model_version, lag=model.lag, rate=rate)


def _figures(stream: Stream, data: Path) -> dict[str, Any]:
    """Return the report. What was learned is read from the store's own rows, not from what the service says."""
    checkpoints = EmbeddedCheckpointStore(DataDirectory(data).open(), keep=2)
    learned = consumed(checkpoints)
    latest = checkpoints.latest()
    checkpoints.close()
    return {
        "items": len(stream.correct),
        "accuracy": round(float(np.mean(stream.correct)), 4),
        f"accuracy_last_{LAST}": round(float(np.mean(stream.correct[-LAST:])), 4),
        "versions": latest.version if latest else 0,
        "feedback_to_served_ms": _percentiles(stream.feedback_to_served_ms),
        "predict_ms": _percentiles(stream.predict_ms),
        "requests_per_second": round(2 * len(stream.correct) / stream.seconds, 1),
        "seconds": round(stream.seconds, 2),
        "lost": sum(seq not in learned for seq in set(stream.seqs)),
        "duplicated": sum(learned[seq] > 1 for seq in learned) + len(stream.seqs) - len(set(stream.seqs)),
        "replay_identical": verify_versions(data),
    }


def _percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(milliseconds, q)), 2) for q in (50, 99)}


def _draw(stream: Stream, versions: int, path: Path) -> None:
    """Draw the accuracy over the stream, with a mark where a hundred versions have passed."""
    passed = range(100 * (stream.versions[0] // 100 + 1), versions + 1, 100)
    window = 100
    draw_curves(
        path,
        {
            "all so far": sliding_mean(stream.correct, len(stream.correct)),
            f"last {window}": sliding_mean(stream.correct, window),
        },
        {int(np.searchsorted(stream.versions, version)) + 1: f"v{version}" for version in passed},
        title=f"everlearn demo: {len(stream.correct)} digits, {versions} versions",
        x="digits, each predicted before its label was sent",
        y="accuracy",
        legend="accuracy over",
    )


def _summarise(figures: dict[str, Any], report: Path, plot: Path, console: Console) -> None:
    served, predict = figures["feedback_to_served_ms"], figures["predict_ms"]
    all_items, last = figures["accuracy"], figures[f"accuracy_last_{LAST}"]
    console.print(
        f"\n{figures['items']} digits in {figures['seconds']} s, each predicted, then learned from:"
        f"\n  accuracy              {all_items:.3f} over all, {last:.3f} over the last {LAST}"
        f"\n  versions              {figures['versions']}, every one durable before it was served"
        f"\n  feedback to served    {served['p50']} ms (p50), {served['p99']} ms (p99)"
        f"\n  predict               {predict['p50']} ms (p50), {predict['p99']} ms (p99)"
        f"\n  feedback              {figures['lost']} lost, {figures['duplicated']} applied twice"
        f"\n  replay                {'bit-identical' if figures['replay_identical'] else 'DIFFERS'}"
        f"\nreport in {report}, learning curve in {plot}"
    )


def _curls(url: str, digit: Digit) -> list[str]:
    """Return commands to go on with."""
    instance, label = digit
    numbers = json.dumps([int(number) for number in instance], separators=(",", ":"))
    return [
        f"curl -s {url}/predict --json '{{\"instances\": [{numbers}]}}'",
        f'curl -s {url}/feedback --json \'{{"feedback": [{{"instance": {numbers}, "label": "{label}"}}]}}\'',
        f"curl -s {url}/model",
    ]
