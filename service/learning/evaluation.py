"""Prequential evaluation: each item is judged before it is learned from (Dawid 1984; Gama et al. 2013)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.base import Scores


class Prequential:
    """Means of a head's scores: over everything, over a sliding window, and per class."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._items = 0
        self._totals: dict[str, Tensor] = {}  # score -> [sum, count]
        self._recent: dict[str, Tensor] = {}  # score -> the last `window` values, NaN where it said nothing
        self._classes = torch.zeros(0, 2, dtype=torch.float64)  # [classes, (sum, count)] of the head's metric

    def record(self, scores: Scores, metric: str, classes: Sequence[int]) -> None:
        """Take in the scores of some items; `classes` are their class indices, empty where the task has none."""
        for name, values in scores.items():
            exact = values.double().cpu()
            known = exact[~exact.isnan()]
            total = self._totals.get(name, torch.zeros(2, dtype=torch.float64))
            self._totals[name] = total + torch.stack([known.sum(), torch.tensor(float(len(known)))])
            recent = self._recent.get(name, torch.zeros(0, dtype=torch.float64))
            self._recent[name] = torch.cat([recent, exact])[-self.window :]
        self._items += len(scores[metric])
        if classes:
            self._record_classes(scores[metric].double().cpu(), torch.tensor(classes))

    def _record_classes(self, values: Tensor, classes: Tensor) -> None:
        missing = int(classes.max()) + 1 - len(self._classes)
        if missing > 0:
            self._classes = torch.cat([self._classes, self._classes.new_zeros(missing, 2)])
        self._classes.index_add_(0, classes, torch.stack([values, torch.ones_like(values)], dim=1))

    def metrics(self) -> dict[str, Any]:
        """Return items and the mean of each score, over everything and over the window; None where nothing is known."""
        recent = {name: values.nanmean() for name, values in self._recent.items()}
        size = max((len(values) for values in self._recent.values()), default=0)
        return {
            "items": self._items,
            **{name: _rounded(total[0] / total[1]) for name, total in self._totals.items()},
            "window": {"items": size, **{name: _rounded(value) for name, value in recent.items()}},
        }

    def by_class(self, labels: Sequence[str], metric: str) -> dict[str, Any]:
        """Return items and the metric's mean of each class that has been judged."""
        rows = zip(labels, self._classes.tolist(), strict=False)
        return {label: {"items": int(count), metric: round(total / count, 6)} for label, (total, count) in rows if count}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {
            "items": torch.tensor(self._items),
            "classes": self._classes,
            **{f"totals.{name}": total for name, total in self._totals.items()},
            **{f"recent.{name}": values for name, values in self._recent.items()},
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        self._items = int(tensors["items"])
        self._classes = tensors["classes"].clone()
        self._totals = _under(tensors, "totals.")
        self._recent = _under(tensors, "recent.")


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor.clone() for name, tensor in tensors.items() if name.startswith(prefix)}


def _rounded(value: Tensor) -> float | None:
    """Return a number for JSON, where NaN does not exist."""
    return round(value.item(), 6) if value.isfinite() else None
