"""`everlearn tune`: the recorded log learned again with other settings, to find what would have served better."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.base import Head
from models.errors import ModelError
from models.inputs import InputKind
from service.checkpointing import Shaping, declaration, first_state, item
from service.evaluate.courses import OwnCourse
from service.learning.arithmetic import use_deterministic_torch
from service.learning.limits import UpdateRefused
from service.learning.update import Item
from service.reasons import CLASSES
from service.replay import ReplayImpossible, ascending
from service.store import Entry, FeedbackLog, StoreError
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog

SEARCHED = 0.7  # share of the items that settings are chosen by; the rest confirms the choice
FEWEST_ITEMS = 100
SEEDS = 3  # that confirm the choice
RESAMPLES = 2000  # of the bootstrap
BLOCKS = 12  # that the items are cut into: long ones, since one model leads for hundreds of items, and then the other
# Items per update, the same for all: else a setting would also be judged by how old it lets the model get.
GROUP = 4
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
    """The 95 % interval of how much better the change is: a paired bootstrap of blocks of items."""

    @property
    def better(self) -> bool:
        """Whether the whole interval says so."""
        return self.low > 0


def run(data: Path, output: Path, *, last: int, jobs: int | None) -> bool:
    """Try settings on the newest items of a log, print what came out, and write them if others are better.

    Raises StoreError, and OSError where the output can't be written.
    """
    console = Console(highlight=False, soft_wrap=True)
    shaping, seqs, declared = _recorded(data, last)
    if len(seqs) < FEWEST_ITEMS:
        raise LogTooShort(f"the log has {len(seqs)} items to compare settings by; it takes {FEWEST_ITEMS}")
    head = first_state(shaping, "cpu").model.head
    searched = int(SEARCHED * len(seqs))
    tried, verdict = choose(data, shaping, seqs, searched, declared=declared, higher_is_better=head.higher_is_better, jobs=jobs)
    console.print(_table(tried, head, searched))
    if verdict is None:
        console.print("nothing was better than the recorded settings; nothing is written")
        return False
    console.print(_told(verdict, head, len(seqs) - searched))
    if not verdict.better:
        console.print("that may be chance: nothing is written")
        return False
    output.write_text(tomli_w.dumps(_without_none(changed(shaping, verdict.change))))
    console.print(
        f"wrote [model] and [learning] to {output}; add your other sections. To go on with it, let it learn the same log"
        f" anew: everlearn fork --data {data} --to NEW, then everlearn serve --config {output} --data NEW",
        markup=False,
    )
    return True


def choose(
    data: Path,
    shaping: Shaping,
    seqs: Sequence[int],
    searched: int,
    *,
    declared: Sequence[int] = (),
    higher_is_better: bool,
    jobs: int | None,
) -> tuple[dict[Change, float], Verdict | None]:
    """Return the mean score of every change that was tried, and the verdict on the best; None where none was better.

    Changes are chosen by the first `searched` items, the rest gives the verdict. Classes that were `declared` are in all.
    """
    sign = 1 if higher_is_better else -1
    with ProcessPoolExecutor(jobs or os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn")) as pool:
        trial = partial(_trials, pool, data, shaping)
        first = sorted([*declared, *seqs[:searched]])
        means = _means(trial(first, [RECORDED, *single(shaping)]), sign)
        means |= _means(trial(first, together(means, sign)), sign)
        best = max(means, key=lambda change: sign * means[change])
        if best == RECORDED:
            return means, None
        seeded = {change: _seeded(shaping, change) for change in (RECORDED, best)}
        whole = trial(sorted([*declared, *seqs]), list(chain.from_iterable(seeded.values())))
    # What the seed brings is not the settings' merit: each item's score is the mean over several.
    rest = {change: np.mean([whole[each] for each in seeded[change]], axis=0)[searched:] for change in seeded}
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
    best: dict[str, Change] = {}
    for change in sorted(means, key=lambda change: -sign * means[change]):
        if sign * (means[change] - means[RECORDED]) > 0:
            best.setdefault(change[0][0], change)
    helped = list(best.values())[:TOGETHER]
    return [tuple(part for change in helped[:count] for part in change) for count in range(2, len(helped) + 1)]


def _means(trials: Mapping[Change, list[float]], sign: int) -> dict[Change, float]:
    """Return the mean score of each change; the worst there is for one that made a model that must not be served."""
    return {change: float(np.mean(scores)) if scores else -sign * math.inf for change, scores in trials.items()}


def _seeded(shaping: Shaping, change: Change) -> list[Change]:
    first = shaping["learning"]["seed"]
    return [(*change, ("seed", (first + number) % 2**63)) for number in range(SEEDS)]


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
    """Return the 95 % interval of the mean of paired differences, [items].

    A circular block bootstrap (Politis and Romano 1992): one model is better than another for a while, then the other is,
    and items drawn one by one would take each of these for many.
    """
    count = len(differences)
    block = max(1, count // BLOCKS)
    rolled = np.concatenate([[0.0], np.cumsum(np.concatenate([differences, differences[:block]]))])
    blocks = (rolled[block:] - rolled[:-block])[:count] / block  # the mean of each block, by its first item
    choices = np.random.default_rng(0).integers(count, size=(RESAMPLES, math.ceil(count / block)))
    low, high = np.percentile(blocks[choices].mean(1), [2.5, 97.5])
    return float(low), float(high)


def scores_of(data: Path, shaping: Shaping, seqs: Sequence[int]) -> list[float]:
    """Learn the items from the beginning and return the score of each, judged before it was learned from.

    Empty where the settings made a model that must not be served.
    """
    use_deterministic_torch(1)
    course = OwnCourse("trial", first_state(shaping, "cpu"))
    feedback = EmbeddedFeedbackLog(DataDirectory(data).open())
    kind = course.state.model.input
    numbers: dict[int, int] = {}
    try:
        for entry_kind, entries in groupby(_entries(feedback, seqs), key=lambda entry: entry.kind):
            if entry_kind == "class":
                course.state.declare([declaration(entry) for entry in entries])
                continue
            items = _items(kind, entries, numbers)
            while group := list(islice(items, GROUP)):
                course.take(group)
    except (UpdateRefused, ModelError):
        return []
    finally:
        feedback.close()
    return course.scores


def _items(kind: InputKind, entries: Iterator[Entry], numbers: dict[int, int]) -> Iterator[Item]:
    """Yield items to learn, and note the number that each has in the course by its sequence number in the log."""
    for entry in entries:
        numbers[entry.seq] = len(numbers) + 1
        earlier = None if entry.replaces is None else numbers.get(entry.replaces)
        # The answer that was served then was another model's: these settings are to be judged by their own.
        yield item(kind, entry)._replace(answer=None, replaces=earlier)


def _entries(feedback: FeedbackLog, seqs: Sequence[int]) -> Iterator[Entry]:
    for start in range(0, len(seqs), PAGE):
        entries = feedback.fetch(seqs[start : start + PAGE])
        if missing := set(seqs[start : start + PAGE]) - entries.keys():
            raise ReplayImpossible(f"seq {min(missing)} was learned from, and the log does not have it any more")
        yield from (entries[seq] for seq in seqs[start : start + PAGE])


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


def _recorded(data: Path, last: int) -> tuple[Shaping, list[int], list[int]]:
    """Return the settings of a data directory, the newest items that it has learned from, and all declared classes."""
    directory = DataDirectory(data).open()
    checkpoints = EmbeddedCheckpointStore(directory, keep=2)
    shaping = checkpoints.shaping()
    if shaping is None:
        raise StoreError("there is no version yet")
    learned: list[int] = []
    declared: list[int] = []
    for version in ascending(checkpoints, after=-1):
        if version.superseded is None:
            taken = declared if version.reason == CLASSES else learned
            taken += [seq for new, _ in version.steps for seq in new]
    checkpoints.close()
    return shaping, learned[-last:], declared


def _table(means: Mapping[Change, float], head: Head, items: int) -> Table:
    """Return the table of what was tried, the best first."""
    table = Table("settings", head.metric, "difference", title=f"each over the same {items} items")
    sign = -1 if head.higher_is_better else 1
    for change in sorted(means, key=lambda change: sign * means[change]):
        difference = means[change] - means[RECORDED]
        shown = (f"{means[change]:.4f}", f"{difference:+.4f}") if math.isfinite(means[change]) else ("diverged", "")
        table.add_row(_named(change), shown[0], "" if change == RECORDED else shown[1])
    return table


def _told(verdict: Verdict, head: Head, items: int) -> str:
    gain = f"{verdict.low:+.4f} to {verdict.high:+.4f}"
    return (
        f"on the {items} items after these: {_named(verdict.change)} has {head.metric} {verdict.changed:.4f}, the recorded"
        f" settings {verdict.recorded:.4f}; better by {gain} (95 % interval)"
    )


def _without_none(value: Any) -> Any:
    """Return plain data without the options that are None, which TOML does not have: they are at their defaults."""
    if isinstance(value, dict):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    return value


def _named(change: Change) -> str:
    return ", ".join(f"{name} = {value}" for name, value in change) or "recorded"
