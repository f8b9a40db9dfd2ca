"""Drift: detectors over the prequential loss. They are River's (Montiel et al. 2021); here is what makes them durable."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from service.settings import LearningSettings


class Detector(Protocol):
    """What is used of River's detectors."""

    drift_detected: bool

    def update(self, x: float) -> object:
        """Take the next loss in."""


MOST_LOSSES = 4000  # that a detector has seen at most; then it starts again from the latest half


def _adwin() -> Detector:
    """ADWIN (Bifet and Gavalda 2007): a window that is cut where its two parts differ, be it for the worse or the better.

    Both call for a shorter memory: what a worse model has been taught is no longer the best of what there is to rehearse.
    """
    from river.drift import ADWIN

    detector: Detector = ADWIN()
    return detector


def _page_hinkley() -> Detector:
    """Page-Hinkley (Page 1954): the accumulated deviation above the mean."""
    from river.drift import PageHinkley

    detector: Detector = PageHinkley(mode="up")
    return detector


# River is imported where a detector is made, which is where it is first asked: it takes half as long as torch.
DETECTORS: dict[str, Callable[[], Detector]] = {"adwin": _adwin, "page_hinkley": _page_hinkley}


class DriftDetector:
    """One of River's detectors. Its state is the losses that it has seen: a checkpoint holds numbers, never a pickle."""

    def __init__(self, name: str) -> None:
        self._make = DETECTORS[name]
        self._detector: Detector | None = None
        self._losses = array("d")

    def update(self, losses: Sequence[float]) -> bool:
        """Take in losses, about 0..1, in their order; return whether they have shifted."""
        self.prepare()
        shifted = [self._shifts(loss) for loss in losses]
        self._losses.extend(losses)
        if len(self._losses) > MOST_LOSSES:
            self._start(self._losses[-MOST_LOSSES // 2 :])
        return any(shifted)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {"losses": torch.from_numpy(np.array(self._losses))}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned, by showing a new detector the same losses."""
        self._start(tensors["losses"].tolist())

    def prepare(self) -> None:
        """Make the detector, where there is none yet, and show it the losses: the first update would have to."""
        if self._detector is None:
            self._detector = self._make()
            for loss in self._losses:
                self._shifts(loss)

    def _start(self, losses: Sequence[float]) -> None:
        self._detector = None
        self._losses = array("d", losses)

    def _shifts(self, loss: float) -> bool:
        assert self._detector is not None
        self._detector.update(loss)
        return bool(self._detector.drift_detected)


class DriftResponse:
    """What to do about drift: `watch` says when to shorten the memory, `items` for how long the world has been this one.

    A class that is new raises the loss as drift does, and what was learned before stays true: for `new_class_items` items
    after one, nothing is taken for drift.
    """

    new_class_items = 1000

    def __init__(self, settings: LearningSettings) -> None:
        self._detector = None if settings.drift == "none" else DriftDetector(settings.drift)
        self._seen = 0
        self._grew_at = -self.new_class_items
        self._last = (0, 0, 0)  # seq, update and items of the last drift; the first item is one too
        self.events = 0

    def prepare(self) -> None:
        """Do now what the first update would have to wait for."""
        if self._detector is not None:
            self._detector.prepare()

    def watch(self, losses: Tensor, last_seq: int, update: int, *, grew: bool) -> bool:
        """Take in the losses of judged items, [batch]; return whether there is drift to respond to."""
        self._seen += len(losses)
        if grew:
            self._grew_at = self._seen
        if self._detector is None or not self._detector.update(losses.tolist()):
            return False
        if self._seen - self._grew_at < self.new_class_items:
            return False
        self.events += 1
        self._last = (last_seq, update, self._seen)
        return True

    @property
    def items(self) -> int:
        """How many items were judged since the last drift, or the beginning."""
        return self._seen - self._last[2]

    def describe(self) -> dict[str, Any]:
        """Return how often there was drift, and the sequence number at which it was found last."""
        return {"events": self.events, "seq": self._last[0]} if self.events else {"events": 0}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        counts = torch.tensor([self._seen, self._grew_at, self.events, *self._last])
        return {"counts": counts, **({} if self._detector is None else self._detector.tensors())}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        self._seen, self._grew_at, self.events, *last = tensors["counts"].tolist()
        self._last = (last[0], last[1], last[2])
        if self._detector is not None:
            self._detector.load(tensors)
