"""One update: judge the new items, then take optimizer steps on them and on rehearsed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from models.base import Answer, Features, Head, Label, OnlineModel, Scores
from service.learning.arithmetic import subnormals_as_zero
from service.learning.averaging import WeightAverage
from service.learning.drift import DriftResponse
from service.learning.evaluation import Prequential
from service.learning.factors import NO_FACTORS, Factors
from service.learning.limits import check_finite
from service.learning.optimizers import NamedOptimizer
from service.learning.randomness import Purpose, choices_for, torch_randomness_for
from service.learning.rehearsal import MEMORIES
from service.learning.tensorfile import pack
from service.settings import LearningSettings


class Item(NamedTuple):
    """One labelled instance, ready to learn from."""

    prepared: Any
    """None where what a frozen encoder says of it is known already."""
    label: Label
    weight: float = 1.0
    answer: Answer | None = None
    """What was kept of the answer that was served, where the label is for one."""
    replaces: int | None = None
    """The sequence number of the label that this one corrects."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A class that is named before its first label, or described anew."""

    name: str
    descriptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step learns from, as sequence numbers."""

    new: tuple[int, ...]
    rehearsed: tuple[int, ...]


class Part(Protocol):
    """A part of the state that goes into the learner's file."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""


class LearningState:
    """Everything that an update reads and changes. Together with the recorded steps it determines the next version."""

    def __init__(self, model: OnlineModel, settings: LearningSettings) -> None:
        self.settings = settings
        self.model = model.eval()
        self.optimizer = NamedOptimizer(settings.optimizer, dict(model.trainable()), model.rates())
        self.average = WeightAverage(settings.average, dict(model.trainable()))
        self.rehearsal = MEMORIES[settings.rehearsal](settings.memory, settings.recent_age)
        self.prequential = Prequential(settings.window, settings.fading)
        self.drift = DriftResponse(settings)
        self.factors = Factors()
        self.updates = 0
        """How many there were since the initial weights: random choices are keyed by it."""
        self.features: dict[int, Tensor] = {}
        """What a frozen encoder says of items, by sequence number: worked out when they are new, then only looked up."""
        self._encoded_now: set[int] = set()

    def plan(self, seqs: Sequence[int], items: Mapping[int, Item]) -> list[Step]:
        """Cut new items into optimizer steps and pick what each rehearses, of all that was learned before that step."""
        choices = choices_for(self.settings.seed, self.updates + 1, Purpose.REHEARSE)
        corrected = _corrected(items[seq] for seq in seqs)
        # What earlier steps have learned is rehearsed too: an import often comes class by class, and a large update that
        # did not look back would end with the last one.
        cuts = list(self._cut(seqs))
        memory = deepcopy(self.rehearsal) if corrected or len(cuts) > 1 else self.rehearsal  # which one step leaves as it is
        memory.forget(corrected)
        before: Sequence[int] = ()
        steps = []
        for new in cuts:
            classes = self.model.head.strata([items[seq].label for seq in before])
            memory.remember(before, _balanced(classes, len(before)), choices)
            memory.forget(corrected.intersection(before))
            # In the warm-up a step is a whole one, however few new items there are.
            count = self.settings.step_items if self._warms_up else len(new)
            steps.append(Step(tuple(new), memory.pick(count * self.settings.rehearse, choices)))
            before = new
        return steps

    @property
    def appetite(self) -> int:
        """How many new items one step takes now."""
        return 1 if self._warms_up else self.settings.step_items

    def update(
        self,
        steps: Sequence[Step],
        items: Mapping[int, Item],
        factors: Mapping[int, float] = NO_FACTORS,
        alive: Callable[[], object] = lambda: None,
    ) -> Scores:
        """Make the next version in place; return the scores of the new items, judged before they were learned from.

        `factors` are the gate's, on the weights of new items; they stay with an item when it is rehearsed. `alive` is called
        between two steps: all of them may take minutes.

        Raises LabelError for a label that the head can't admit, UpdateRefused by the gate, or whatever the model
        raises; the state is then torn and must be loaded again.
        """
        seqs = [seq for step in steps for seq in step.new]
        scores: Scores = {}
        self._forget_features(items)
        self.factors.take(factors, self.rehearsal)
        if seqs:
            with torch_randomness_for(self.settings.seed, self.updates + 1), subnormals_as_zero():
                scores = self._learn(steps, items, seqs, alive)
            check_finite(self.model)
        self.updates += 1
        return scores

    def declare(self, declarations: Sequence[Declaration]) -> None:
        """Make the next version in place: one that knows these classes. Raises LabelError; the state is then torn."""
        with torch_randomness_for(self.settings.seed, self.updates + 1):
            for declaration in declarations:
                self.model.declare(declaration.name, declaration.descriptions)
        self._follow()
        self.updates += 1

    def _learn(
        self, steps: Sequence[Step], items: Mapping[int, Item], seqs: Sequence[int], alive: Callable[[], object]
    ) -> Scores:
        new = [items[seq] for seq in seqs]
        labels = [item.label for item in new]
        head = self.model.head
        known = len(head.labels)
        with torch.no_grad():
            features = self._met(seqs, new)
            outputs = head(features) if head.ready else None
            scores = head.scores(outputs, labels)
            head.admit(labels)
            targets = head.targets(labels)
            head.observe(features, outputs, labels, self._weights(seqs, new))
        self._follow()
        with self.average.training():
            for step in steps:
                alive()
                self._step(step, items)
        if not self.model.encoder.frozen:
            self.model.encoder.eval()
        classes = head.strata(labels)
        served = {**_as_served(head, scores, new), "target": targets}
        self.prequential.record(served, head.metric, classes)
        choices = choices_for(self.settings.seed, self.updates + 1, Purpose.REMEMBER)
        believed = torch.tensor([not self.factors.doubts(seq) for seq in seqs])
        losses = head.losses(scores).cpu()[believed]
        if self.drift.watch(losses, seqs[-1], self.updates + 1, grew=len(head.labels) > known):
            self.rehearsal.shorten()
        self.rehearsal.remember(seqs, _balanced(classes, len(seqs)), choices)
        self.rehearsal.forget(_corrected(new))
        return served

    def _follow(self) -> None:
        """Have optimizer and average go on with the parameters that growth has replaced."""
        parameters = dict(self.model.trainable())
        self.optimizer.follow(parameters, self.model.rates)
        self.average.follow(parameters)

    def _step(self, step: Step, items: Mapping[int, Item]) -> None:
        if self.optimizer.idle:
            return
        seqs = (*step.new, *step.rehearsed)
        taken = [items[seq] for seq in seqs]
        weights = self._weights(seqs, taken)
        fresh = torch.arange(len(taken), device=self.model.device) < len(step.new)  # [batch]
        losses = self.model.head.loss(self._encoded(seqs, taken), [item.label for item in taken], fresh)  # [batch]
        # A step on fewer new items is shorter in proportion (the linear scaling rule, Goyal et al. 2017).
        scale = 1.0 if self._warms_up else len(step.new) / self.settings.step_items
        self.optimizer.step((losses * weights).sum() / len(taken), scale)
        self.average.take(scale)

    def _weights(self, seqs: Sequence[int], items: Sequence[Item]) -> Tensor:
        """Return the weights of items, [items]."""
        weights = [item.weight * self.factors.of(seq) for seq, item in zip(seqs, items, strict=True)]
        return torch.tensor(weights, device=self.model.device)

    def _encoded(self, seqs: Sequence[int], items: Sequence[Item]) -> Features:
        """Return the features of items to train on."""
        if self.model.encoder.frozen:
            return self._recalled(seqs, items)
        self.model.encoder.train_on(len(items))
        return self.model.encoder(self.model.collate([item.prepared for item in items]))

    def seen(self, items: Mapping[int, Item]) -> Features:
        """Return the features of new items, and change nothing that a version is made of."""
        if self.model.encoder.frozen:
            return self._recalled(list(items), list(items.values()))
        return self.model.encoder(self.model.collate([item.prepared for item in items.values()]))

    def _met(self, seqs: Sequence[int], items: Sequence[Item]) -> Features:
        """Return the features of new items, which the encoder's statistics take in."""
        if self.model.encoder.frozen:
            return self._recalled(seqs, items)
        batch = self.model.collate([item.prepared for item in items])
        features = self.model.encoder(batch)
        self.model.encoder.observe(batch)
        return features

    def _recalled(self, seqs: Sequence[int], items: Sequence[Item]) -> Features:
        """Return what a frozen encoder says of items, [items, width].

        It looks at each alone: sums come out otherwise in another batch, and an item may be taken again, by a rollback or
        where others were forgotten, in any.
        """
        for seq, item in zip(seqs, items, strict=True):
            if seq not in self.features:
                with torch.no_grad(), subnormals_as_zero():  # also where the gate looks first, outside of the update
                    self.features[seq] = self.model.encoder(self.model.collate([item.prepared]))[0].clone()
                self._encoded_now.add(seq)
        return torch.stack([self.features[seq] for seq in seqs])

    def take_encoded(self) -> dict[int, bytes]:
        """Return what a frozen encoder said of items that was not known, once, as a store keeps it: float32, [width] each."""
        taken = {seq: self.features[seq].cpu().numpy().tobytes() for seq in self._encoded_now if seq in self.features}
        self._encoded_now = set()
        return taken

    def _forget_features(self, taken: Iterable[int]) -> None:
        """Let go of what can't be rehearsed any more and is not taken now, now and then."""
        if len(self.features) > 4 * self.settings.memory:
            kept = {*self.rehearsal.seqs, *taken}
            self.features = {seq: features for seq, features in self.features.items() if seq in kept}
            self._encoded_now &= kept

    @property
    def _warms_up(self) -> bool:
        return self.drift.items < self.settings.warm_up

    def _cut(self, seqs: Sequence[int]) -> Iterator[Sequence[int]]:
        return (seqs[start : start + self.appetite] for start in range(0, len(seqs), self.appetite))

    def metrics(self) -> dict[str, Any]:
        """Return the prequential metrics, what the head says of its experts, and the drifts that were found."""
        head = self.model.head
        experts = head.describe()
        return {
            **self.prequential.metrics(head.averaged, head.summarise),
            **({"experts": experts} if experts else {}),
            "drift": self.drift.describe(),
        }

    def by_class(self) -> dict[str, Any]:
        """Return the prequential metric per class."""
        return self.prequential.by_class(self.model.head.labels, self.model.head.metric)

    # The two files of a checkpoint that an update changes, and what no update changes.

    def frozen_bytes(self) -> bytes:
        """Return what no update changes, as safetensors."""
        return pack(self.model.split_state()[0])

    def model_bytes(self) -> bytes:
        """Return what the engine needs of a version, as safetensors."""
        return pack(self.model.live_state())

    def learner_bytes(self) -> bytes:
        """Return what only the learner needs to go on, as safetensors."""
        return pack(self.part_tensors())

    def part_tensors(self) -> dict[str, Tensor]:
        """Return what only the learner needs to go on, by part and name."""
        return {f"{name}:{key}": value for name, part in self._parts() for key, value in part.tensors().items()}

    def load(self, updates: int, model: Mapping[str, Tensor], learner: Mapping[str, Tensor]) -> None:
        """Take the state of a version, `updates` after the first: its frozen and live model tensors, and the learner's."""
        self.model.load_state_dict({name: tensor.clone() for name, tensor in model.items()})
        self._follow()
        for name, part in self._parts():
            prefix = f"{name}:"
            part.load({key.removeprefix(prefix): value for key, value in learner.items() if key.startswith(prefix)})
        self.updates = updates

    def _parts(self) -> Sequence[tuple[str, Part]]:
        return (
            ("optimizer", self.optimizer),
            ("average", self.average),
            ("rehearsal", self.rehearsal),
            ("prequential", self.prequential),
            ("drift", self.drift),
            ("factors", self.factors),
        )


def _corrected(items: Iterable[Item]) -> set[int]:
    """Return the items whose labels these correct."""
    return {item.replaces for item in items if item.replaces is not None}


def _balanced(classes: Sequence[int], items: int) -> Sequence[int]:
    """Return the classes that rehearsal balances, of each item: all 0 where the task has none."""
    return classes or [0] * items


def _as_served(head: Head, scores: Scores, items: Sequence[Item]) -> Scores:
    """Return the scores with those of the answers that were served in their places: a label may come long after."""
    served = [(row, head.judge(item.answer, item.label)) for row, item in enumerate(items) if item.answer is not None]
    if not served:
        return scores
    scores = {name: column.clone() for name, column in scores.items()}
    for row, judged in served:
        for name, value in judged.items():
            scores[name][row] = value
    return scores
