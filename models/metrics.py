"""Metrics of some judged items, from their scores as columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Column = NDArray[np.float64]

BINS = 15  # of the calibration error


def classification_metrics(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """Return metrics of the columns accuracy, log_loss, predicted, confidence and target, each [items].

    Balanced accuracy is the mean recall of the classes that occur; kappa-M compares with always answering the most
    frequent class (Bifet et al. 2015); ECE is the expected calibration error in 15 bins (Guo et al. 2017).
    """
    accuracy, log_loss, predicted, confidence, target = (
        columns[name].double().cpu().numpy() for name in ("accuracy", "log_loss", "predicted", "confidence", "target")
    )
    present, index = np.unique(target, return_inverse=True)
    support = np.bincount(index)
    hits = np.bincount(index, weights=accuracy)
    claims = np.array([np.count_nonzero(predicted == label) for label in present])
    majority = support.max() / support.sum()
    right = float(accuracy.mean())
    return {
        "accuracy": right,
        "balanced_accuracy": float((hits / support).mean()),
        "kappa_m": (right - majority) / (1 - majority) if majority < 1 else float("nan"),
        "macro_f1": float((2 * hits / (support + claims)).mean()),
        "log_loss": _mean(log_loss),
        "ece": calibration_error(confidence, accuracy),
    }


def seen_and_unseen(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """Return accuracy on classes with labels, on those without any so far, and their harmonic mean (Xian et al. 2017)."""
    accuracy, unseen = (columns[name].double().cpu().numpy() for name in ("accuracy", "unseen"))
    on_unseen, on_seen = _mean(accuracy[unseen == 1]), _mean(accuracy[unseen != 1])
    total = on_seen + on_unseen
    harmonic = 2 * on_seen * on_unseen / total if total > 0 else total
    return {"seen_accuracy": on_seen, "unseen_accuracy": on_unseen, "harmonic_accuracy": harmonic}


def calibration_error(confidence: Column, accuracy: Column) -> float:
    """Return the mean distance between confidence and accuracy, over bins of confidence; NaN without answers."""
    answered = ~np.isnan(confidence)
    if not answered.any():
        return float("nan")
    confidence, accuracy = confidence[answered], accuracy[answered]
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=accuracy - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def regression_metrics(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """Return MAE, RMSE and R2 of the columns mae, mse and target, each [items]."""
    mae, mse, target = (columns[name].double().cpu().numpy() for name in ("mae", "mse", "target"))
    variance = float(target.var())
    return {
        "mae": _mean(mae),
        "rmse": float(np.sqrt(_mean(mse))),
        "r2": 1 - _mean(mse) / variance if variance > 0 else float("nan"),
    }


def means(columns: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """Return the means of columns, each [items], over the items that they say something of."""
    return {name: _mean(columns[name].double().cpu().numpy()) for name in names}


def gain(rank: float) -> float:
    """Return the NDCG@10 of a ranking with one item that matters, behind so many others (Järvelin and Kekäläinen 2002)."""
    return 1 / math.log2(rank + 2) if rank < 10 else 0.0


def auc(scores: Tensor, targets: Tensor) -> float:
    """Return the share of pairs of a click and none in which the click had the higher score (Mann and Whitney 1947)."""
    values, clicked = scores.double().cpu().numpy(), targets.double().cpu().numpy() > 0
    known = ~np.isnan(values)
    values, clicked = values[known], clicked[known]
    count = int(clicked.sum())
    if count in {0, len(clicked)}:
        return math.nan
    _, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[inverse]  # ties share their mean rank
    return float((ranks[clicked].sum() - count * (count + 1) / 2) / (count * (len(clicked) - count)))


def _mean(values: Column) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
