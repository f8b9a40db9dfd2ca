"""How well scenes are found, in the pure loop: mAP and F1 along a stream, beside the plain baseline, and what it costs.

`python -m benchmarks.detection [--items 2800] [--seed 0] [--late 0]`; with --late, crosses come only after so many scenes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from models.base import OnlineModel
from models.registry import build_model
from service.demo.detection import SIZE, Blobs
from service.demo.scenes import scenes
from service.demo.zeroshot import encoded
from service.learning.arithmetic import use_deterministic_torch
from service.learning.update import Item, LearningState
from service.settings import LearningSettings
from service.templates import TEMPLATES

TEMPLATE = TEMPLATES["detection"]
PART = 200  # scenes that a figure is of
LATE = "cross"
Scene = tuple[bytes, dict[str, list[str]]]


def stream(seed: int, late: int) -> Iterator[Scene]:
    """Yield scenes; the first `late` of them have no crosses."""
    count = 0
    for picture, label in scenes(np.random.default_rng(seed), SIZE):
        if count >= late or LATE not in label["labels"]:
            count += 1
            yield picture, label


def learn(state: LearningState, made: Sequence[Scene]) -> tuple[dict[str, Tensor], float]:
    """Learn a stream, one step an update; return its scores, each judged before it was learned from, and ms per label."""
    prepare, size = state.model.input.prepare, state.settings.step_items
    items = {seq: Item(prepare(picture), label) for seq, (picture, label) in enumerate(made, 1)}
    began = time.process_time()
    batches = (range(start, min(start + size, len(items) + 1)) for start in range(1, len(items) + 1, size))
    parts = [state.update(state.plan(batch, items), items) for batch in batches]
    spent = time.process_time() - began
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, 1000 * spent / len(items)


def baseline(state: LearningState, made: Sequence[Scene]) -> dict[str, Tensor]:
    """Return the scores of what stands out as the most frequent shape, on the same stream."""
    blobs, rows = Blobs(), []
    for picture, label in made:
        said = blobs.answer(instance := encoded(picture))
        kept = {name: said[name][: state.model.head.max_boxes] for name in ("boxes", "labels")}
        known = kept["labels"][:1] != [""]
        kept = kept if known else {"boxes": [], "labels": []}
        rows.append(state.model.head.judge({**kept, "scores": [1.0] * len(kept["labels"])}, label))
        blobs.learn(instance, label)
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def table(model: OnlineModel, columns: dict[str, Tensor], ends: Sequence[int], name: str) -> None:
    """Print mAP and F1 over the scenes before each of `ends`."""
    told = [model.head.summarise({key: column[end - PART : end] for key, column in columns.items()}) for end in ends]
    for metric in ("map_50", "f1"):
        print(f"| {name}, {metric} | " + " | ".join(f"{each[metric]:.3f}" for each in told) + " |", flush=True)


def recalls(model: OnlineModel, columns: dict[str, Tensor], ends: Sequence[int]) -> None:
    """Print the recall of crosses over the scenes before each of `ends`."""
    place = model.head.labels.index(LATE) + 1
    claims, truths = (
        torch.stack([column for key, column in columns.items() if key.startswith(f"{kind}.")], 1) for kind in ("claim", "truth")
    )
    found, there = (claims == place).sum(1).float(), (truths == place).sum(1).float()
    shown = [f"{found[end - PART : end].sum() / there[end - PART : end].sum():.3f}" for end in ends]
    print(f"| recall of {LATE} | " + " | ".join(shown) + " |")


def predict_ms(model: OnlineModel, pictures: Sequence[bytes], times: int = 20) -> float:
    """Return the milliseconds of processor time that an answer to these pictures at once takes, the median."""
    spent = []
    with torch.inference_mode():
        batch = model.collate([model.input.prepare(each) for each in pictures])
        for _ in range(times):
            began = time.process_time()
            model.head.answers(model(batch), None)
            spent.append(1000 * (time.process_time() - began))
    return float(np.median(spent))


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=2800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--late", type=int, default=0)
    asked = parser.parse_args()
    use_deterministic_torch(1)
    specification = {**{half: TEMPLATE[half] for half in ("encoder", "head")}, "input": {"kind": "scene", "size": SIZE}}
    model = build_model(specification, seed=asked.seed)
    state = LearningState(model, LearningSettings(**{**TEMPLATE["learning"], "seed": asked.seed}))
    made = list(islice(stream(asked.seed, asked.late), asked.items))
    ends = range(400, asked.items + 1, 400)
    print(f"| last {PART} scenes of | " + " | ".join(map(str, ends)) + " |\n" + "|---" * (len(ends) + 1) + "|")
    columns, update_ms = learn(state, made)
    table(model, columns, ends, "everlearn")
    if asked.late:
        recalls(model, columns, range(asked.late + PART, asked.items + 1, PART))
    table(model, baseline(state, made), ends, Blobs.name)
    pictures = [picture for picture, _ in made[:8]]
    print(
        f"processor time, one core: {update_ms:.1f} ms per label in updates of {state.settings.step_items}; "
        f"an answer {predict_ms(model, pictures[:1]):.1f} ms, eight at once {predict_ms(model, pictures):.1f} ms"
    )


if __name__ == "__main__":
    main()
