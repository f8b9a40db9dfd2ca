"""How fast the learner learns: a full backlog, a checkpoint for what reaches the disk, beside a bare PyTorch loop.

    python -m benchmarks.pace [--rounds N] [--steps N]

64 new items and 64 rehearsed ones in each optimizer step, and each step a version; and, as a service comes, up to 256 new
items in a version, which are four steps. The bare loop takes as many through the same layers and the same optimizer, from one
tensor in memory: it neither reads a log, nor judges, nor averages, nor picks what is rehearsed, nor writes anything. Of a
frozen backbone both know the features. The large network is not in the issue's table: it shows what is left of the distance
where it is the arithmetic that takes the time.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import MLP
from service.checkpointing import first_state
from service.learner import Learner
from service.settings import GateSettings
from service.store import NewEntry
from tests.workshop import Workshop

NEW = 64
WIDE = MLP.replace("hidden = [128]", "hidden = [2048, 2048]")
FROZEN = """
[model.input]
kind = "image"
size = 32
[model.encoder]
name = "torchvision"
backbone = "mobilenet_v3_small"
weights = "none"
[model.head]
name = "classification"
experts = ["linear"]
"""


def as_vector(digit: Any) -> bytes:
    """Return a picture of 8 x 8 as 64 numbers."""
    return json.dumps(digit.tolist()).encode()


def as_picture(digit: Any) -> bytes:
    """Return a picture of 8 x 8 as a PNG."""
    file = io.BytesIO()
    Image.fromarray((digit.reshape(8, 8) * 15).astype(np.uint8)).convert("RGB").save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Case:
    """A model to learn, and the same layers for the bare loop."""

    name: str
    config: str
    instance: Callable[[Any], bytes]
    layers: Callable[[], nn.Module]
    steps: int = 1
    """Optimizer steps of an update."""
    slower: int = 1
    """How many times fewer steps are measured."""

    @property
    def update_items(self) -> int:
        """How many new items an update takes."""
        return NEW * self.steps


CASES = (
    Case("MLP", MLP, as_vector, lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))),
    Case(
        "MLP, updates of 256", MLP, as_vector, lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), steps=4
    ),
    Case("head on a frozen backbone", FROZEN, as_picture, lambda: nn.Linear(1024, 10)),
    Case(
        "MLP 64-2048-2048-10",
        WIDE,
        as_vector,
        lambda: nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10)),
        slower=10,
    ),
)


@contextmanager
def learning(case: Case, items: int) -> Iterator[tuple[Learner, Tensor]]:
    """Give a learner with a backlog, its store on the disk; and what the layers take of each digit."""
    digits, labels = load_digits(return_X_y=True)
    instances = [case.instance(digit) for digit in digits]
    chosen = np.random.default_rng(0).integers(0, len(labels), items)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(
            Workshop(
                *(Path(folder), case.update_items),
                model=tomllib.loads(case.config)["model"],
                gate=GateSettings(),
                step_items=NEW,
                rehearse=1,
                warm_up=0,
            )
        ) as workshop,
    ):
        inputs = torch.tensor(digits, dtype=torch.float32) if case.config != FROZEN else encoded(workshop, instances)
        for rows in np.array_split(chosen, max(1, items // 256)):
            entries = [NewEntry(instance=instances[row], label=json.dumps(str(labels[row])), digest=b"") for row in rows]
            seqs = workshop.log.append(entries).result()
            if case.config == FROZEN:
                workshop.features.put({seq: inputs[row].numpy().tobytes() for seq, row in zip(seqs, rows, strict=True)})
        yield workshop.learner(), inputs


def encoded(workshop: Workshop, instances: Sequence[bytes]) -> Tensor:
    """Return what the frozen encoder says of pictures, one at a time, as the learner asks it."""
    model = first_state(workshop.shaping, "cpu").model.eval()
    with torch.no_grad():
        return torch.cat([model.encoder(model.collate([model.input.prepare(each)])) for each in instances])


def learned(learner: Learner, updates: int, steps: int) -> float:
    """Make updates; return the seconds that one of their steps took, until all are on stable storage."""
    begun = time.perf_counter()
    for _ in range(updates):
        assert learner.step()
    learner._commits.finish()
    return (time.perf_counter() - begun) / updates / steps


def looped(layers: nn.Module, inputs: Tensor, steps: int) -> float:
    """Do as many steps in a bare loop; return the seconds that one took."""
    labels = torch.tensor(load_digits(return_X_y=True)[1])
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.001)
    picked = torch.randint(0, len(labels), (steps, 2 * NEW))
    begun = time.perf_counter()
    for rows in picked:
        optimizer.zero_grad()
        nn.functional.cross_entropy(layers(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    return (time.perf_counter() - begun) / steps


def measure(case: Case, rounds: int, steps: int) -> None:
    """Measure both sides and write the row."""
    updates = max(1, steps // case.steps)
    with learning(case, (rounds + 1) * updates * case.update_items) as (learner, inputs):
        sides = {
            "everlearn": partial(learned, learner, updates, case.steps),
            "bare": partial(looped, case.layers(), inputs, updates * case.steps),
        }
        measured = interleaved(sides, rounds)
    ratio = measured.ratio("bare", "everlearn", float)
    said = ", ".join(f"{side} {NEW / seconds:.0f} new items/s" for side, seconds in measured.medians(float).items())
    Row(8, f"learner items/s, {case.name}", "bare loop", "at least 0.9x", f"{ratio}", ratio.median >= 0.9, said).write()
    print(said)


def main() -> None:
    given = options(__doc__, rounds=5, steps=200)
    torch.set_num_threads(1)
    for case in CASES:
        measure(case, given.rounds, max(1, given.steps // case.slower))


if __name__ == "__main__":
    main()
