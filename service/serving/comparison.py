"""What learning changed between two versions: how each answers recent feedback, and how far the weights moved."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from models.base import Head, Label, OnlineModel
from models.errors import InstanceError
from service.checkpointing import item
from service.learning.update import Item
from service.position import Position
from service.serving.examiner import Spare
from service.store import Entry, FeedbackLog, Version

MOST_FLIPS = 100  # of those that are told one by one; the newest

Pair = dict[str, float | None]
"""What the version before says, and the one after."""


@dataclass(slots=True)
class _Judged:
    """What one version says of each item, in the order of the log."""

    seqs: list[int] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    said: list[Label | None] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class Window:
    """The latest items of the log, the same for both versions; at most `items`, read `batch` by `batch`."""

    feedback: FeedbackLog
    end: int
    items: int
    batch: int

    def pages(self) -> Iterator[Sequence[Entry]]:
        """Yield the entries in their order."""
        after = max(0, self.end - self.items)
        while after < self.end and (page := self.feedback.read(after, min(self.batch, self.end - after))):
            yield page
            after = page[-1].seq


def compare(spare: Spare, before: Version, after: Version, window: Window) -> dict[str, Any]:
    """Return the comparison as JSON. Raises CorruptCheckpoint where one of them is not stored any longer."""
    old, old_weights = _judge(spare, before, window)
    new, new_weights = _judge(spare, after, window)
    head = spare.take(after).head
    flips = [
        {"seq": seq, "label": label, "before": was, "after": now}
        for seq, label, was, now in zip(old.seqs, old.labels, old.said, new.said, strict=True)
        if was != now
    ]
    return {
        "before": before.version,
        "after": after.version,
        "over": {
            "items": len(old.seqs),
            "first_seq": min(old.seqs, default=None),
            "last_seq": max(old.seqs, default=None),
            "seen": {"before": _seen(old, before), "after": _seen(old, after)},
        },
        "metric": head.metric,
        "metrics": {name: _pair(old, new, name, range(len(old.seqs))) for name in head.averaged},
        "by_class": _by_class(old, new, head),
        "flipped": len(flips),
        "flips": flips[-MOST_FLIPS:],
        "modules": _moves(old_weights, new_weights),
    }


def _judge(spare: Spare, version: Version, window: Window) -> tuple[_Judged, Mapping[str, Tensor]]:
    model = spare.take(version)
    judged = _Judged()
    for page in window.pages():
        spare.check()
        known = [(entry.seq, made) for entry in page if entry.kind == "feedback" and (made := _readable(model, entry))]
        if known:
            _add(judged, model, *zip(*known, strict=True))
    return judged, {name: parameter.detach() for name, parameter in model.trainable()}


def _readable(model: OnlineModel, entry: Entry) -> Item | None:
    try:
        return item(model.input, entry)
    except InstanceError:  # set aside by the learner too
        return None


def _add(judged: _Judged, model: OnlineModel, seqs: Sequence[int], items: Sequence[Item]) -> None:
    labels = [item.label for item in items]
    with torch.inference_mode():
        outputs = model(model.collate([item.prepared for item in items])) if model.head.ready else None
        scores = model.head.scores(outputs, labels)
        answers = [{}] * len(items) if outputs is None else model.head.settled(outputs)
    judged.seqs += seqs
    judged.labels += labels
    judged.said += [answer.get(model.head.decides) for answer in answers]
    for name, column in scores.items():
        judged.scores[name] += column.tolist()


def _seen(judged: _Judged, version: Version) -> int:
    return sum(Position.of(version).contains(seq) for seq in judged.seqs)


def _by_class(old: _Judged, new: _Judged, head: Head) -> dict[str, Any] | None:
    strata = head.strata(old.labels)
    if not head.labels or (old.labels and not strata):
        return None
    rows: dict[str, list[int]] = defaultdict(list)
    for row, (label, index) in enumerate(zip(old.labels, strata, strict=True)):
        rows[head.labels[index] if index >= 0 else str(label)].append(row)
    return {label: {"items": len(own), **_pair(old, new, head.metric, own)} for label, own in sorted(rows.items())}


def _pair(old: _Judged, new: _Judged, name: str, rows: Sequence[int]) -> Pair:
    return {"before": _mean(old.scores[name], rows), "after": _mean(new.scores[name], rows)}


def _mean(column: Sequence[float], rows: Sequence[int]) -> float | None:
    """Return the mean of what the score says something of, None where there is no such item."""
    mean = torch.tensor([column[row] for row in rows], dtype=torch.float64).nanmean().item()
    return None if math.isnan(mean) else round(mean, 6)


def _moves(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Return the norms of each module's parameters in both versions, and of their difference."""
    modules: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(chain(old, new)):
        modules[name.rpartition(".")[0]].append(name)
    return {
        module: {
            "before": _norm(old[name] for name in names if name in old),
            "after": _norm(new[name] for name in names if name in new),
            "difference": _norm(_difference(old.get(name), new.get(name)) for name in names),
        }
        for module, names in modules.items()
    }


def _norm(tensors: Iterator[Tensor]) -> float:
    return round(math.sqrt(sum(tensor.double().square().sum().item() for tensor in tensors)), 6)


def _difference(old: Tensor | None, new: Tensor | None) -> Tensor:
    """Return new - old; a class that one of them does not have counts as zeros there, as it starts."""
    if old is None or new is None:
        whole = new if old is None else old
        assert whole is not None
        return whole
    shape = [max(sides) for sides in zip(old.shape, new.shape, strict=True)]
    difference = new.new_zeros(shape)
    difference[tuple(map(slice, new.shape))] += new
    difference[tuple(map(slice, old.shape))] -= old
    return difference
