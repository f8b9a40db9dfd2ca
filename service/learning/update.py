"""One update: judge the new items, then take optimizer steps on them and on rehearsed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from models.base import Label, OnlineModel
from service.learning.evaluation import Prequential
from service.learning.gate import check_finite
from service.learning.optimizers import NamedOptimizer
from service.learning.randomness import Purpose, choices_for, torch_randomness_for
from service.learning.rehearsal import Reservoir
from service.settings import LearningSettings


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled instance, ready to learn from."""

    prepared: Any
    label: Label
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step learns from, as sequence numbers."""

    new: tuple[int, ...]
    rehearsed: tuple[int, ...]


class LearningState:
    """Everything that an update reads and changes. Together with the recorded steps it determines the next version."""

    def __init__(self, model: OnlineModel, settings: LearningSettings) -> None:
        self.settings = settings
        self.model = model
        self.optimizer = NamedOptimizer(settings.optimizer, model.trainable())
        self.rehearsal = Reservoir(settings.memory)
        self.prequential = Prequential(settings.window)
        self.version = 0

    def plan(self, seqs: Sequence[int]) -> list[Step]:
        """Cut new items into optimizer steps and pick what each rehearses."""
        choices = choices_for(self.settings.seed, self.version + 1, Purpose.REHEARSE)
        size = self.settings.step_items
        return [
            Step(tuple(seqs[start : start + size]), self.rehearsal.pick(self.settings.rehearse, choices))
            for start in range(0, len(seqs), size)
        ]

    def update(self, steps: Sequence[Step], items: Mapping[int, Item]) -> None:
        """Make the next version in place.

        Raises LabelError for a label that the head can't admit, UpdateRefused by the gate, or whatever the model
        raises; the state is then torn and must be loaded again.
        """
        seqs = [seq for step in steps for seq in step.new]
        if seqs:
            with torch_randomness_for(self.settings.seed, self.version + 1):
                self._learn(steps, items, [items[seq] for seq in seqs])
            check_finite(self.model)
            self.rehearsal.remember(seqs, choices_for(self.settings.seed, self.version + 1, Purpose.REMEMBER))
        self.version += 1

    def _learn(self, steps: Sequence[Step], items: Mapping[int, Item], new: Sequence[Item]) -> None:
        labels = [item.label for item in new]
        batch = self.model.collate([item.prepared for item in new])
        with torch.no_grad():
            self.model.eval()
            scores = self.model.head.scores(self.model(batch), labels)
            self.model.head.admit(labels)
            self.model.encoder.observe(batch)
        self.optimizer.follow(self.model.trainable())
        for step in steps:
            self._step([items[seq] for seq in (*step.new, *step.rehearsed)])
        index = {label: position for position, label in enumerate(self.model.head.labels)}
        classes = [index[str(label)] for label in labels] if index else []
        self.prequential.record(scores, self.model.head.metric, classes)

    def _step(self, items: Sequence[Item]) -> None:
        batch = self.model.collate([item.prepared for item in items])
        weights = torch.tensor([item.weight for item in items], device=self.model.device)  # [batch]
        self.model.encoder.train_on(len(items))
        losses = self.model.head.loss(self.model(batch), [item.label for item in items])  # [batch]
        self.optimizer.step((losses * weights).sum() / len(items))

    def metrics(self) -> dict[str, Any]:
        """Return the prequential metrics, overall and over the window."""
        return self.prequential.metrics()

    def by_class(self) -> dict[str, Any]:
        """Return the prequential metric per class."""
        return self.prequential.by_class(self.model.head.labels, self.model.head.metric)

    # The two files of a checkpoint that an update changes, and what no update changes.

    def frozen_bytes(self) -> bytes:
        """Return what no update changes, as safetensors."""
        return _serialise(self.model.split_state()[0])

    def model_bytes(self) -> bytes:
        """Return what the engine needs of a version, as safetensors."""
        return _serialise(self.model.split_state()[1])

    def learner_bytes(self) -> bytes:
        """Return what only the learner needs to go on, as safetensors."""
        return _serialise({f"{name}:{key}": value for name, part in self._parts() for key, value in part.tensors().items()})

    def load(self, version: int, model: Mapping[str, Tensor], learner: Mapping[str, Tensor]) -> None:
        """Take the state of a version: its frozen and live model tensors, and the learner's."""
        self.model.load_state_dict({name: tensor.clone() for name, tensor in model.items()})
        self.optimizer = NamedOptimizer(self.settings.optimizer, self.model.trainable())
        for name, part in self._parts():
            prefix = f"{name}:"
            part.load({key.removeprefix(prefix): value for key, value in learner.items() if key.startswith(prefix)})
        self.version = version

    def _parts(self) -> Sequence[tuple[str, NamedOptimizer | Reservoir | Prequential]]:
        return (("optimizer", self.optimizer), ("rehearsal", self.rehearsal), ("prequential", self.prequential))


def _serialise(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
