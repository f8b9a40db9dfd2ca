"""`everlearn tune`: the recorded log learned again with other settings, to find what would have served better."""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.base import Head
from service.checkpointing import Shaping, first_state, item
from service.evaluate.courses import OwnCourse
from service.learner import use_deterministic_torch
from service.learning.update import Item
from service.replay import ascending
from service.store import FeedbackLog, StoreError
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog

SEARCHED = 0.7  # share of the items that settings are chosen by; the rest confirms the choice
FEWEST_ITEMS = 100
RESAMPLES = 2000  # of the bootstrap
PAGE = 500

Change = tuple[tuple[str, Any], ...]
"""Settings of [learning] that differ from the recorded ones; "optimizer.lr" is the learning rate."""

RECORDED: Change = ()
# One setting at a time is changed first; what helps is then tried together.
VALUES: Mapping[str, Sequence[Any]] = {
    "rehearse": (0, 1, 4, 12),
    "rehearsal": ("mixed", "recent", "balanced"),
    "average": (0.0, 0.9, 0.97),
    "step_items": (1, 4, 16),
    "drift": ("adwin", "none"),
}
RATES = (1 / 3, 3.0)  # times the recorded learning rate
TOGETHER = 3  # changes at most


class LogTooShort(StoreError):
    """The log holds too little to compare settings by."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a change would have brought on the items that it was not chosen by, as means of the task's metric."""

    change: Change
    recorded: float
    changed: float
    low: float
    high: float
    """The 95 % interval of how much better the change is: a paired bootstrap (Efron and Tibshirani 1993)."""

    @property
    def better(self) -> bool:
        """Whether the whole interval says so."""
        return self.low > 0


def run(data: Path, output: Path, *, last: int, jobs: int | None) -> bool:
    """Try settings on the newest items of a log, print what came out, and write them if others are better.

    Raises StoreError, and OSError where the output can't be written.
    """
    console = Console(highlight=False, soft_wrap=True)
    shaping, seqs = _recorded(data, last)
    if len(seqs) < FEWEST_ITEMS:
        raise LogTooShort(f"the log has {len(seqs)} items to compare settings by; it takes {FEWEST_ITEMS}")
    head = first_state(shaping, "cpu").model.head
    tried, verdict = choose(data, shaping, seqs, higher_is_better=head.higher_is_better, jobs=jobs)
    console.print(_table(tried, head, int(SEARCHED * len(seqs))))
    if verdict is None:
        console.print("nothing was better than the recorded settings; nothing is written")
        return False
    console.print(_told(verdict, head, len(seqs) - int(SEARCHED * len(seqs))))
    if not verdict.better:
        console.print("that may be chance: nothing is written")
        return False
    output.write_text(tomli_w.dumps(changed(shaping, verdict.change)))
    console.print(
        f"wrote {output}. To go on with it, let it learn the same log anew: everlearn fork --data {data} --to NEW,"
        f" then everlearn serve --config {output} --data NEW",
        markup=False,
    )
    return True


def choose(
    data: Path, shaping: Shaping, seqs: Sequence[int], *, higher_is_better: bool, jobs: int | None
) -> tuple[dict[Change, float], Verdict | None]:
    """Return the mean score of every change that was tried, and the verdict on the best; None where none was better."""
    sign = 1 if higher_is_better else -1
    searched = seqs[: int(SEARCHED * len(seqs))]
    # A process for each trial: torch's threads and the models' randomness stay apart.
    with ProcessPoolExecutor(jobs or os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn")) as pool:
        trial = partial(_trials, pool, data, shaping)
        means = {change: float(np.mean(scores)) for change, scores in trial(searched, [RECORDED, *single(shaping)]).items()}
        for change, scores in trial(searched, together(means, sign)).items():
            means[change] = float(np.mean(scores))
        best = max(means, key=lambda change: sign * means[change])
        if best == RECORDED:
            return means, None
        whole = trial(seqs, [RECORDED, best])
    rest = {change: np.asarray(scores[len(searched) :]) for change, scores in whole.items()}
    low, high = interval(sign * (rest[best] - rest[RECORDED]))
    return means, Verdict(best, float(rest[RECORDED].mean()), float(rest[best].mean()), low, high)


def single(shaping: Shaping) -> list[Change]:
    """Return the changes of one setting from the recorded ones."""
    learning = shaping["learning"]
    rate = learning["optimizer"]["lr"]
    rates: list[Change] = [(("optimizer.lr", float(f"{factor * rate:.3g}")),) for factor in RATES]
    return rates + [((name, value),) for name, values in VALUES.items() for value in values if value != learning[name]]


def together(means: Mapping[Change, float], sign: int) -> list[Change]:
    """Return what of the changes that helped, the best of each setting, makes two and more at once."""
    helped = sorted((c for c in means if sign * (means[c] - means[RECORDED]) > 0), key=lambda c: -sign * means[c])
    best = list({change[0][0]: change for change in reversed(helped)}.values())[::-1][:TOGETHER]
    best.sort(key=lambda change: -sign * means[change])
    return [tuple(part for change in best[:count] for part in change) for count in range(2, len(best) + 1)]


def changed(shaping: Shaping, change: Change) -> Shaping:
    """Return the shaping settings with a change made."""
    made: Shaping = copy.deepcopy(dict(shaping))
    for name, value in change:
        *tables, setting = name.split(".")
        place = made["learning"]
        for table in tables:
            place = place[table]
        place[setting] = value
    return made


def interval(differences: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of paired differences, [items]."""
    choices = np.random.default_rng(0)
    means = [differences[choices.integers(len(differences), size=len(differences))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def scores_of(data: Path, shaping: Shaping, seqs: Sequence[int]) -> list[float]:
    """Learn the items from the beginning and return the score of each, judged before it was learned from."""
    use_deterministic_torch(1)
    course = OwnCourse("trial", first_state(shaping, "cpu"))
    feedback = EmbeddedFeedbackLog(DataDirectory(data).open())
    items = _items(course, feedback, seqs)
    while group := list(islice(items, course.appetite)):
        course.take(group)
    feedback.close()
    return course.scores


def _items(course: OwnCourse, feedback: FeedbackLog, seqs: Sequence[int]) -> Iterator[Item]:
    kind = course.state.model.input
    for start in range(0, len(seqs), PAGE):
        entries = feedback.fetch(seqs[start : start + PAGE])
        # The answer that was served then was another model's: these settings are to be judged by their own.
        yield from (replace(item(kind, entries[seq]), answer=None) for seq in seqs[start : start + PAGE])


def _trials(
    pool: ProcessPoolExecutor, data: Path, shaping: Shaping, seqs: Sequence[int], changes: Sequence[Change]
) -> dict[Change, list[float]]:
    """Return the scores of each change, tried side by side."""
    columns = (TextColumn("settings tried"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("tune", total=len(changes))
        running = {pool.submit(scores_of, data, changed(shaping, change), seqs): change for change in changes}
        found = {}
        for done in as_completed(running):
            found[running[done]] = done.result()
            progress.advance(bar)
    return {change: found[change] for change in changes}


def _recorded(data: Path, last: int) -> tuple[Shaping, list[int]]:
    """Return the settings of a data directory and the newest sequence numbers that it has learned from."""
    directory = DataDirectory(data).open()
    checkpoints = EmbeddedCheckpointStore(directory, keep=2)
    shaping = checkpoints.shaping()
    if shaping is None:
        raise StoreError("there is no version yet")
    learned = [seq for version in ascending(checkpoints, after=-1) for new, _ in version.steps for seq in new]
    checkpoints.close()
    return shaping, learned[-last:]


def _table(means: Mapping[Change, float], head: Head, items: int) -> Table:
    """Return the table of what was tried, the best first."""
    table = Table("settings", head.metric, "difference", title=f"each over the same {items} items")
    sign = -1 if head.higher_is_better else 1
    for change in sorted(means, key=lambda change: sign * means[change]):
        difference = means[change] - means[RECORDED]
        table.add_row(_named(change), f"{means[change]:.4f}", "" if change == RECORDED else f"{difference:+.4f}")
    return table


def _told(verdict: Verdict, head: Head, items: int) -> str:
    gain = f"{verdict.low:+.4f} to {verdict.high:+.4f}"
    return (
        f"on the {items} items after these: {_named(verdict.change)} has {head.metric} {verdict.changed:.4f}, the recorded"
        f" settings {verdict.recorded:.4f}; better by {gain} (95 % interval)"
    )


def _named(change: Change) -> str:
    return ", ".join(f"{name} = {value}" for name, value in change) or "recorded"
