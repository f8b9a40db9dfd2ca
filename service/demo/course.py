"""A stream sent to a running service: each item predicted, judged, then taught; beside it, what a plain baseline says."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import track

from service.client import Client, Feedback, NoClasses, Prediction
from service.curves import draw_curves, sliding_mean

Item = tuple[Any, Any]
"""An instance and its label, as JSON."""
Score = Callable[[Mapping[str, Any], Any], float]
"""What an answer is worth against the label."""

PART = 0.1  # of a stream, that its start, middle and end are told by


class Baseline(Protocol):
    """The plain thing that a learner must beat."""

    name: str

    def answer(self, instance: Any) -> dict[str, Any] | None:
        """Return an answer as /predict would give it, None before it can."""

    def learn(self, instance: Any, label: Any) -> None:
        """Take the label in."""


class Majority:
    """The most frequent label so far."""

    def __init__(self, name: str = "most frequent label") -> None:
        self.name = name
        self._counts: Counter[Any] = Counter()

    def answer(self, instance: Any) -> dict[str, Any] | None:
        """Return the label."""
        return {"label": self._counts.most_common(1)[0][0]} if self._counts else None

    def learn(self, instance: Any, label: Any) -> None:
        """Count the label."""
        self._counts[label] += 1


@dataclass
class Course:
    """How a stream went."""

    metric: str
    scores: dict[str, list[float]]
    """What everlearn and each baseline scored on each item, by name."""
    served_ms: list[float] = field(default_factory=list)
    versions: int = 0

    def figures(self) -> dict[str, Any]:
        """Return the report: the metric at the start, in the middle and at the end of the stream, and over all of it."""
        return {
            "items": len(self.scores["everlearn"]),
            "metric": self.metric,
            **{name: told(scores) for name, scores in self.scores.items()},
            "versions": self.versions,
            "feedback_to_served_ms": {f"p{q}": round(float(np.percentile(self.served_ms, q)), 1) for q in (50, 99)},
        }


def follow(
    client: Client,
    stream: Sequence[Item],
    *,
    score: Score,
    metric: str,
    baselines: Iterable[Baseline] = (),
    worst: float = 0.0,
    console: Console,
) -> Course:
    """Send a stream item by item. An item that can't be answered yet scores the `worst`."""
    course = Course(metric, {"everlearn": [], **{baseline.name: [] for baseline in baselines}})
    for instance, label in track(stream, "items", console=console):
        prediction = predicted(client, instance)
        course.scores["everlearn"].append(worst if prediction is None else score(prediction.answer, label))
        for baseline in baselines:
            answer = baseline.answer(instance)
            course.scores[baseline.name].append(worst if answer is None else score(answer, label))
            baseline.learn(instance, label)
        course.served_ms.append(teach(client, instance, label, prediction))
    course.versions = client.model().model_version
    return course


def ask(client: Client, instances: Sequence[str], name: str) -> dict[str, Any]:
    """Return what each answer says under a name, by its instance."""
    predictions = client.predict(instances)
    return {instance: prediction.answer[name] for instance, prediction in zip(instances, predictions, strict=True)}


def is_right(answer: Mapping[str, Any], label: str) -> float:
    """Return 1 where the answered class is the label, else 0."""
    return float(answer["label"] == label)


def told(scores: Sequence[float]) -> dict[str, float]:
    """Return the means over the start, the middle and the end of a stream, and over all of it."""
    size = max(1, round(PART * len(scores)))
    middle = (len(scores) - size) // 2
    parts = {"start": scores[:size], "middle": scores[middle : middle + size], "end": scores[-size:], "all": scores}
    return {name: round(float(np.mean(part)), 4) for name, part in parts.items()}


def show(
    course: Course,
    *,
    title: str,
    over: int,
    report: Path,
    plot: Path,
    console: Console,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the report and the picture, with means over so many items, and print the figures. `more` goes into the report."""
    figures = {**course.figures(), **more}
    report.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    draw_curves(
        plot,
        {name: sliding_mean(scores, over) for name, scores in course.scores.items()},
        {},
        title=f"everlearn demo: {title}",
        x="items, each predicted before its label was sent",
        y=f"{course.metric} over the last {over}",
        legend="",
    )
    width = max(map(len, course.scores))
    rows = [
        f"  {name:{width}}  {part['start']:8.3f} {part['middle']:8.3f} {part['end']:8.3f} {part['all']:8.3f}"
        for name, part in ((name, figures[name]) for name in course.scores)
    ]
    served = figures["feedback_to_served_ms"]
    console.print(
        f"\n{title}: {figures['items']} items, each predicted, then learned from; {figures['versions']} versions"
        f"\n  {course.metric:{width}}  {'start':>8} {'middle':>8} {'end':>8} {'all':>8}\n"
        + "\n".join(rows)
        + f"\n  feedback to served {served['p50']} ms (p50), {served['p99']} ms (p99)"
        f"\nreport in {report}, curves in {plot}",
        markup=False,
    )


def predicted(client: Client, instance: Any) -> Prediction | None:
    """Return the prediction for an instance, None before anything is known."""
    try:
        (prediction,) = client.predict([instance])
    except NoClasses:
        return None
    return prediction


def teach(client: Client, instance: Any, label: Any, prediction: Prediction | None) -> float:
    """Send the label, and return the milliseconds until it was served."""
    began = time.perf_counter()
    client.feedback([labelled(instance, label, prediction)], wait=30)
    return 1000 * (time.perf_counter() - began)


def labelled(instance: Any, label: Any, prediction: Prediction | None) -> Feedback:
    """Return the label of a prediction, or of the instance where there is none."""
    if prediction is None:
        return Feedback(label=label, instance=instance)
    return Feedback(label=label, prediction_id=prediction.id)
