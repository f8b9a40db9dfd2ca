"""Prequential evaluation: each item is judged before it is learned from (Dawid 1984; Gama et al. 2013)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.base import Scores

Summary = Callable[[Scores], Mapping[str, float]]


class Prequential:
    """A head's scores: their means over everything, faded and per class, and their columns over a sliding window."""

    def __init__(self, window: int, fading: float) -> None:
        self.window = window
        self._fading = fading
        self.items = 0
        self._columns: tuple[str, ...] = ()
        self._recent = np.zeros((0, window))  # [columns, window]: a ring, filled from the left
        self._means = np.zeros((0, 4))  # [columns, (sum, count, faded sum, faded count)]
        self._classes = np.zeros((0, 2))  # [classes, (sum, count)] of the head's metric

    def record(self, scores: Scores, metric: str, classes: Sequence[int]) -> None:
        """Take in the scores of some items, and their targets; `classes` are class indices, empty where the task has none."""
        if not self._columns:
            self._columns = tuple(scores)
            self._recent = np.full((len(scores), self.window), np.nan)
            self._means = np.zeros((len(scores), 4))
        values = torch.stack([scores[name].double().cpu() for name in self._columns]).numpy()  # [columns, items]
        count = values.shape[1]
        places = np.arange(self.items, self.items + count)[-self.window :] % self.window
        self._recent[:, places] = values[:, -self.window :]
        known = ~np.isnan(values)
        filled = np.where(known, values, 0.0)
        fading = self._fading ** np.arange(count - 1, -1, -1)
        self._means[:, 2:] *= self._fading**count
        self._means += np.stack([filled.sum(1), known.sum(1), filled @ fading, known @ fading], axis=1)
        self.items += count
        if len(classes):
            self._record_classes(values[self._columns.index(metric)], np.asarray(classes))

    def counted(self, index: int) -> int:
        """Return how many items of a class there were."""
        return int(self._classes[index, 1]) if 0 <= index < len(self._classes) else 0

    def _record_classes(self, values: np.ndarray[Any, Any], classes: np.ndarray[Any, Any]) -> None:
        missing = int(classes.max()) + 1 - len(self._classes)
        if missing > 0:
            self._classes = np.concatenate([self._classes, np.zeros((missing, 2))])
        np.add.at(self._classes, classes, np.stack([values, np.ones_like(values)], axis=1))

    def metrics(self, averaged: Sequence[str], summarise: Summary) -> dict[str, Any]:
        """Return items, the mean of each averaged score over everything and faded, and the window's summary.

        A value is None where nothing is known.
        """
        means = {name: self._means[self._columns.index(name)] for name in averaged if name in self._columns}
        size = min(self.items, self.window)
        recent = {name: torch.from_numpy(row[:size]) for name, row in zip(self._columns, self._recent, strict=True)}
        recalls = [total / count for total, count in self._classes.tolist() if count]
        return {
            "items": self.items,
            **{name: rounded(row[0], row[1]) for name, row in means.items()},
            **({"balanced_accuracy": rounded(sum(recalls), len(recalls))} if recalls else {}),
            "faded": {name: rounded(row[2], row[3]) for name, row in means.items()},
            "window": {"items": size, **{k: rounded(v, 1) for k, v in (summarise(recent) if size else {}).items()}},
        }

    def by_class(self, labels: Sequence[str], metric: str) -> dict[str, Any]:
        """Return items and the metric's mean of each class that has been judged: for accuracy, its recall."""
        rows = zip(labels, self._classes.tolist(), strict=False)
        return {label: {"items": int(count), metric: round(total / count, 6)} for label, (total, count) in rows if count}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {
            "items": torch.tensor(self.items),
            "classes": torch.from_numpy(self._classes.copy()),
            **{f"recent.{index}.{name}": torch.from_numpy(self._recent[index]) for index, name in enumerate(self._columns)},
            **{f"means.{index}.{name}": torch.from_numpy(self._means[index]) for index, name in enumerate(self._columns)},
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        self.items = int(tensors["items"])
        self._classes = tensors["classes"].numpy().copy()
        found = [name.split(".", 2) for name in tensors if name.startswith("recent.")]
        order = sorted((int(index), name) for _, index, name in found)
        self._columns = tuple(name for _, name in order)
        if order:
            self._recent = np.stack([tensors[f"recent.{index}.{name}"].numpy() for index, name in order])
            self._means = np.stack([tensors[f"means.{index}.{name}"].numpy() for index, name in order])


def rounded(total: float, count: float) -> float | None:
    """Return a mean for JSON, where NaN does not exist."""
    return round(float(total / count), 6) if count and math.isfinite(total) else None
