"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def draw_curves(
    path: Path, curves: Mapping[str, Sequence[float]], marks: Mapping[int, str], *, title: str, x: str, y: str, legend: str
) -> None:
    """Draw values over items, one curve a name, the first in front; a mark stands at an item, with its text.

    Raises ImportError without matplotlib, OSError where the file can't be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    for order, (name, values) in enumerate(curves.items()):
        axes.plot(np.arange(1, len(values) + 1), values, label=name, linewidth=1.5 if order == 0 else 1, zorder=3 - order / 100)
    for at, text in marks.items():
        axes.axvline(at, color="0.85", linewidth=1, zorder=0)
        axes.annotate(text, (at, 0.03), xycoords=("data", "axes fraction"), fontsize=7, color="0.4", ha="center")
    axes.set(xlabel=x, ylabel=y, xlim=(0, max(map(len, curves.values()))))
    axes.set_title(title, loc="left")
    axes.legend(loc="best", title=legend, frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def sliding_mean(values: Sequence[float], window: int) -> list[float]:
    """Return at each item the mean of the latest ones, at most `window`."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=float))])
    count = np.arange(1, len(values) + 1)
    first = np.maximum(0, count - window)
    means: list[float] = ((sums[count] - sums[first]) / (count - first)).tolist()
    return means
