"""How good boxes with classes and scores are: which are right, and average precision over many pictures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

OVERLAP = 0.5  # of a box with a true one, as intersection over union, from which on it is right
RECALLS = np.linspace(0, 1, 101)  # that COCO looks at precision at


def right_ones(boxes: Tensor, classes: Sequence[Hashable], true_boxes: Tensor, true_classes: Sequence[Hashable]) -> list[bool]:
    """Return which boxes [n, 4], best score first, are right: each true box is found once, by the best that overlaps it."""
    overlaps = box_iou(true_boxes, boxes).T.tolist() if len(boxes) and len(true_boxes) else [[]] * len(boxes)
    free = set(range(len(true_classes)))
    right = []
    for row, name in zip(overlaps, classes, strict=True):
        candidates = [index for index in free if true_classes[index] == name and row[index] >= OVERLAP]
        best = max(candidates, key=lambda index: (row[index], -index), default=None)
        free.discard(-1 if best is None else best)
        right.append(best is not None)
    return right


def mean_average_precision(scores: Tensor, claims: Tensor, truths: Tensor) -> float:
    """Return mAP at an overlap of 0.5 as COCO has it (Lin et al. 2014), over the classes that occur; NaN where none does.

    `scores` and `claims` [items, boxes] tell boxes: a claim is the class, counted from 1, and negative where the box is
    wrong; `truths` [items, boxes] are the classes of the true boxes. NaN is no box.
    """
    scored, claimed, true = (each.double().cpu().numpy() for each in (scores, claims, truths))
    there = ~np.isnan(scored)
    order = np.argsort(-scored[there], kind="stable")
    claimed = claimed[there][order]
    present, counts = np.unique(true[~np.isnan(true)], return_counts=True)
    precisions = [_average_precision(claimed, name, count) for name, count in zip(present, counts, strict=True)]
    return float(np.mean(precisions)) if precisions else float("nan")


def _average_precision(claims: NDArray[np.float64], name: float, count: int) -> float:
    """Return the mean over recalls of the best precision at that recall or more."""
    right = claims[np.abs(claims) == name] > 0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1] if len(precision) else precision
    places = np.searchsorted(hits / count, RECALLS, side="left")
    return float(np.append(best, 0.0)[np.minimum(places, len(best))].mean())


def as_boxes(boxes: Sequence[Sequence[float]]) -> Tensor:
    """Return boxes as float32 [boxes, 4]."""
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
