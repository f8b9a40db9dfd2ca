"""The command: one pass over a CSV file, a table of what came out, and a report and a picture on demand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from models.errors import LabelError
from service.checkpointing import available, first_state, shaping_of
from service.curves import draw_curves, sliding_mean
from service.evaluate.courses import Course, OwnCourse, PeerCourse
from service.evaluate.peers import PEERS
from service.evaluate.rows import Reader, describe, specification_of, survey
from service.learning.arithmetic import use_deterministic_torch
from service.learning.evaluation import rounded
from service.learning.limits import UpdateRefused
from service.learning.update import Item
from service.settings import Settings, load_settings
from service.tables import StreamError, rows_of

WINDOW = 1000  # items in the report's `value_last_1000`
SHOWN_EVERY = 50  # items between two looks at the metrics while it runs


def run(
    stream: Path, label: str, config: Path | None, *, report: Path | None, plot: Path | None, against: Sequence[str]
) -> None:
    """Evaluate a CSV file and print what came out.

    Raises StreamError, SettingsError, SpecificationError or PeersMissing.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for path in (report, plot):
        if path and not path.parent.is_dir():
            raise StreamError(f"{path} can't be written: there is no folder {path.parent}")
    columns, rows = survey(stream, label)
    settings = load_settings(config) if config else Settings(model=specification_of(columns, label))
    if config is None:
        console.print(f"everlearn: {describe(settings.model, label)}")
    own = own_course("everlearn", settings)
    peers = _peers(own.state.model.head.task, stream, label, against)
    reader = Reader(own.state.model)
    with _progress(console) as progress:
        bar = progress.add_task("evaluate", total=rows, score="")
        for lines, group in _groups(own, ((line, reader.item(line, row, label)) for line, row in rows_of(stream))):
            _take([own, *peers], lines, group)
            if len(own.scores) % SHOWN_EVERY < len(group):  # all metrics of the window cost as much as a small update
                progress.update(bar, score=_running(own))
            progress.advance(bar, len(group))
        progress.update(bar, score=_running(own))
    _print_tables(own, peers, Console(highlight=False))
    if report:
        report.write_text(json.dumps(figures(own, peers), indent=2) + "\n")
    if plot:
        _draw(plot, stream.name, own, peers)


def own_course(name: str, settings: Settings) -> OwnCourse:
    """Return a course of everlearn's from its first state. Raises SpecificationError."""
    learning = settings.learning.model_copy(update={"window": WINDOW})
    use_deterministic_torch(settings.learner.threads)
    shaping = shaping_of(settings.model_copy(update={"learning": learning}))
    return OwnCourse(name, first_state(shaping, available("learner.device", settings.learner.device)))


def figures(own: OwnCourse, peers: Sequence[Course]) -> dict[str, Any]:
    """Return what the report holds."""
    metrics = own.state.metrics()
    return {
        "items": len(own.scores),
        "metric": own.state.model.head.metric,
        **_summary(own),
        "metrics": _known(own.metrics()),
        f"metrics_last_{WINDOW}": _known(own.metrics(WINDOW)),
        "experts": metrics.get("experts", {}),
        "drifts": own.drifts,
        "versions": own.state.updates,
        "peers": {peer.name: _summary(peer) for peer in peers},
    }


def _known(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics for JSON, where NaN does not exist."""
    return {name: rounded(value, 1) for name, value in metrics.items()}


def _summary(course: Course) -> dict[str, Any]:
    return {
        "value": round(float(np.mean(course.scores)), 6),
        f"value_last_{WINDOW}": round(float(np.mean(course.scores[-WINDOW:])), 6),
        "seconds": round(course.seconds, 3),
    }


def _peers(task: str, stream: Path, label: str, against: Sequence[str]) -> list[Course]:
    if not against:
        return []
    classes = sorted({row[label] for _, row in rows_of(stream)}) if task == "classification" else []
    peers = {name: peer for family in against for name, peer in PEERS[family](task, classes).items()}
    return [PeerCourse(name, peer, task) for name, peer in peers.items()]


def _groups(own: OwnCourse, items: Iterator[tuple[int, Item]]) -> Iterator[tuple[Sequence[int], Sequence[Item]]]:
    """Yield (lines, items), as many at a time as one update of everlearn takes."""
    while group := list(islice(items, own.appetite)):
        lines, taken = zip(*group, strict=True)
        yield lines, taken


def _take(courses: Iterable[Course], lines: Sequence[int], items: Sequence[Item]) -> None:
    for course in courses:
        try:
            course.take(items)
        except (LabelError, UpdateRefused) as exc:
            raise StreamError(f"line {lines[0]}{f'..{lines[-1]}' if len(lines) > 1 else ''}: {exc}") from exc


def _running(own: OwnCourse) -> str:
    """Return the metric so far, for the progress bar."""
    metrics, name = own.state.metrics(), own.state.model.head.metric
    return f"{name} {metrics[name]:.4f} (last {WINDOW}: {metrics['window'][name]:.4f})"


def _print_tables(own: OwnCourse, peers: Sequence[Course], console: Console) -> None:
    whole, last = own.metrics(), own.metrics(WINDOW)
    table = Table("metric", "all items", f"last {WINDOW}", title=f"everlearn over {len(own.scores)} items")
    for name, value in whole.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}", f"{last[name]:.4f}")
    console.print(table)
    metrics = own.state.metrics()
    experts = ", ".join(f"{name} {weight:.2f}" for name, weight in metrics.get("experts", {}).items())
    drifts = ", ".join(map(str, own.drifts)) or "none"
    console.print(f"experts at the end: {experts or 'one'}")
    console.print(f"drift after item: {drifts}\nversions: {own.state.updates}", soft_wrap=True)
    if peers:
        console.print(_beside(own, peers))


def _beside(own: OwnCourse, peers: Sequence[Course]) -> Table:
    """Return the table of all courses, the best first."""
    head = own.state.model.head
    table = Table(Column("learner", no_wrap=True), f"{head.metric}, all items", f"last {WINDOW}", "ms per item")
    sign = -1 if head.higher_is_better else 1
    for course in sorted([own, *peers], key=lambda course: sign * float(np.mean(course.scores))):
        values = f"{np.mean(course.scores):.4f}", f"{np.mean(course.scores[-WINDOW:]):.4f}"
        speed = f"{1000 * course.seconds / len(course.scores):.2f}"
        table.add_row(course.name, *values, speed, style="bold" if course is own else None)
    return table


def _draw(path: Path, title: str, own: OwnCourse, peers: Sequence[Course]) -> None:
    window = max(50, min(WINDOW, len(own.scores) // 20))
    draw_curves(
        path,
        {course.name: sliding_mean(course.scores, window) for course in (own, *peers)},
        {at: f"drift {number}" for number, at in enumerate(own.drifts, start=1)},
        title=f"{title}: {len(own.scores)} items, {own.state.updates} versions",
        x="items, each predicted before it was learned from",
        y=own.state.model.head.metric,
        legend=f"over the last {window}",
    )


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[score]}"), TimeRemainingColumn())
    return Progress(*columns, console=console)
