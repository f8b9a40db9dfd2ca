"""A learner's course over a stream: it answers each item, is judged, and only then learns from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from models.base import Label, Scores
from service.evaluate.peers import Peer, features_of
from service.learning.update import Item, LearningState


class Course(Protocol):
    """One learner and how it has fared so far."""

    name: str
    scores: list[float]
    """The score of each item by the task's metric: 1 or 0 for right and wrong, or an absolute error."""
    seconds: float

    def take(self, items: Sequence[Item]) -> None:
        """Answer the next items, and learn from them."""


class OwnCourse:
    """everlearn's own: as the learner process does it, without the process."""

    def __init__(self, name: str, state: LearningState) -> None:
        self.name = name
        self.state = state
        self.scores: list[float] = []
        self.seconds = 0.0
        self.drifts: list[int] = []
        """After how many items drift was found."""
        self._columns: list[Scores] = []
        self._items: dict[int, Item] = {}
        self._forget_at = 2 * state.settings.memory  # items

    @property
    def appetite(self) -> int:
        """How many items the next update takes: labels that come as fast as steps are made."""
        return self.state.appetite

    def take(self, items: Sequence[Item]) -> None:
        """Make one update of the items. Raises what `LearningState.update` raises."""
        first = len(self.scores) + 1
        seqs = range(first, first + len(items))
        self._items.update(zip(seqs, items, strict=True))
        events = self.state.drift.events
        started = time.perf_counter()
        scores = self.state.update(self.state.plan(seqs, self._items), self._items)
        self.seconds += time.perf_counter() - started
        self._columns.append(scores)
        self.scores += scores[self.state.model.head.metric].tolist()
        if self.state.drift.events > events:
            self.drifts.append(len(self.scores))
        if len(self._items) > self._forget_at:
            self._items = {seq: self._items[seq] for seq in self.state.rehearsal.seqs}
            self._forget_at = 2 * len(self._items)

    def metrics(self, last: int = 0) -> dict[str, float]:
        """Return all metrics of the task over the last items, 0 for every item."""
        columns = {name: self._column(name)[-last:] for name in self._columns[0]}
        return dict(self.state.model.head.summarise(columns))

    def _column(self, name: str) -> Tensor:
        return torch.cat([columns[name] for columns in self._columns])


class PeerCourse:
    """A peer's, one item after the other, as its own library has it."""

    def __init__(self, name: str, peer: Peer, task: str) -> None:
        self.name = name
        self.scores: list[float] = []
        self.seconds = 0.0
        self._peer = peer
        self._classifies = task == "classification"

    def take(self, items: Sequence[Item]) -> None:
        """Answer each item and learn from it, before the next one is seen."""
        for item in items:
            started = time.perf_counter()
            answer = self.answer(item)
            self._peer.learn(features_of(item.prepared), item.label)
            self.seconds += time.perf_counter() - started
            self.scores.append(self._score(answer, item.label))

    def answer(self, item: Item) -> Label | None:
        """Return what it says of an item now."""
        return self._peer.predict(features_of(item.prepared))

    def _score(self, answer: Label | None, label: Label) -> float:
        if self._classifies:
            return float(answer == label)
        return abs(float(answer or 0.0) - float(label))
