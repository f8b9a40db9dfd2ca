"""How fast the learner learns: a full backlog, a checkpoint after each update, beside a bare PyTorch loop.

    python -m benchmarks.pace [--rounds N] [--updates N]

64 new items and 64 rehearsed ones in each optimizer step. The bare loop takes the same batches through the same layers and the
same optimizer, and neither reads a log, nor judges, nor picks what is rehearsed, nor writes anything.
"""

from __future__ import annotations

import json
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import MLP
from service.learner import Learner
from service.settings import GateSettings
from service.store import NewEntry
from tests.workshop import Workshop

NEW = 64


@contextmanager
def learning(items: int) -> Iterator[Learner]:
    """Give a learner with a backlog, its store on the disk."""
    pictures, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).integers(0, len(labels), items)
    model = tomllib.loads(MLP)["model"]
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(
            Workshop(Path(folder), NEW, model=model, gate=GateSettings(), step_items=NEW, rehearse=1, warm_up=0)
        ) as workshop,
    ):
        for part in np.array_split(chosen, max(1, items // 256)):
            entries = [(pictures[row].tolist(), str(labels[row])) for row in part]
            workshop.log.append(
                [NewEntry(instance=json.dumps(x).encode(), label=json.dumps(y), digest=b"") for x, y in entries]
            ).result()
        yield workshop.learner()


def learned(learner: Learner, updates: int) -> float:
    """Make updates; return the seconds that one took, its commit included."""
    begun = time.perf_counter()
    for _ in range(updates):
        assert learner.step()
    return (time.perf_counter() - begun) / updates


def looped(updates: int) -> float:
    """Do the same steps in a bare loop; return the seconds that one took."""
    pictures, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures, dtype=torch.float32), torch.tensor(labels)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    picked = torch.randint(0, len(y), (updates, 2 * NEW))
    begun = time.perf_counter()
    for rows in picked:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return (time.perf_counter() - begun) / updates


def main() -> None:
    given = options(__doc__, rounds=5, updates=200)
    torch.set_num_threads(1)
    with learning((given.rounds + 1) * given.updates * NEW) as learner:
        sides = {"everlearn": partial(learned, learner, given.updates), "bare": partial(looped, given.updates)}
        rounds = interleaved(sides, given.rounds)
    ratio = rounds.ratio("bare", "everlearn", float)
    said = ", ".join(f"{side} {NEW / seconds:.0f} new items/s" for side, seconds in rounds.medians(float).items())
    Row(8, "learner items/s, MLP", "bare loop", "at least 0.9x", f"{ratio}", ratio.median >= 0.9, said).write()
    print(said)


if __name__ == "__main__":
    main()
