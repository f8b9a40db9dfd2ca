"""`OnlineModel` = encoder + head: what the learner trains, the engine serves, and a custom model must provide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import LabelError, NotExplainable, NotExportable
from models.experts.base import Embed, Expert
from models.inputs import Batch, InputKind

__all__ = ["Answer", "Batch", "Encoder", "Features", "Head", "Label", "OnlineModel", "Scores"]

Label = Any  # plain JSON: a class name, a number, or whatever else a head's `parse_label` makes
Features = Any  # a tensor [batch, width], or what else an encoder `gives` and a head takes
Outputs = Any  # a tensor [batch, ...], or what else a head's `forward` makes for its own `answers`
Answer = dict[str, Any]  # what /predict says of one instance, without its id
Scores = dict[str, Tensor]  # metric name -> [batch], NaN where the metric says nothing of an item


class Half(nn.Module, ABC):
    """What encoder and head have in common: each may have tensors that no update changes, and rates of its own."""

    def fixed(self) -> set[str]:
        """Return the names of the tensors that no update changes; they are stored once."""
        return set()

    def rates(self) -> dict[str, float]:
        """Return factors on the learning rate of its parameters, by name; 1 for those that are not there."""
        return {}


class Encoder(Half):
    """Instance tensors -> features: [batch, width], unless `gives` says that they are something else."""

    width: int
    gives: str = "vectors"
    """What its features are, by name."""
    plain: int | None = None
    """How many of the features, the first ones, say all there is to say; the rest expand them. None: all of them."""

    @abstractmethod
    def forward(self, batch: Batch) -> Features:
        """Return features; never changes statistics, they are `observe`'s."""

    def observe(self, batch: Batch) -> None:
        """Take new instances into running statistics (buffers). Called by the learner only, before it trains."""

    def train_on(self, size: int) -> None:
        """Enter training mode for a step on `size` instances."""
        self.train()

    def means(self) -> Tensor | None:
        """Return the running mean of each number of an instance, [numbers], where the encoder keeps them: a baseline."""
        return None

    @property
    def frozen(self) -> bool:
        """Whether the whole encoder keeps its initial tensors: what it says of an instance is then worked out once."""
        return False

    def fixed(self) -> set[str]:
        """Return the names of the tensors that no update changes; they are stored once."""
        return set(self.state_dict()) if self.frozen else set()


class Head(Half):
    """Features -> output. A head *is* the task: it owns labels, loss, answers, metrics and growth."""

    task: str
    takes: str = "vectors"
    """What an encoder must give it."""
    metric: str
    """Name of the score that sums the task up, for progress bars and reports."""
    higher_is_better: bool
    averaged: tuple[str, ...]
    """The scores whose mean over all items says something."""
    label_type: Any
    """Type of a label in JSON, as pydantic takes it."""
    example_label: Label
    """A label for the OpenAPI document."""
    answer_type: Any
    """Pydantic model of an answer without its id, for the OpenAPI document."""
    decides: str = ""
    """The name, in an answer, of what two versions may decide differently; empty where they are not compared by it."""
    explains: str = ""
    """What `explained` returns, by name."""

    def check(self, input: InputKind) -> None:
        """Raise SpecificationError where it can't work on such instances."""

    @abstractmethod
    def forward(self, features: Features) -> Outputs:
        """Return raw outputs for features [batch, width]."""

    @abstractmethod
    def parse_label(self, value: Any) -> Label:
        """Turn a JSON label into the form that is logged. Raises LabelError."""

    def check_label(self, label: Label, instance: Callable[[], Any]) -> None:
        """Raise LabelError for a label that this instance can't have; it is loaded only where that matters."""

    @abstractmethod
    def admit(self, labels: Sequence[Label]) -> None:
        """Make room for what these labels bring (classes, statistics). Raises LabelError before any change."""

    most_classes: int | None = None
    """How many classes there is room for; None where they are not counted."""

    def classes_of(self, label: Label) -> Sequence[str]:
        """Return the classes that a label names, known or not."""
        return []

    def check_class(self, name: str, descriptions: Sequence[str]) -> None:
        """Raise LabelError for a class that `declare` would not take."""
        raise LabelError(f"{self.task} has no classes")

    def declare(self, name: str, descriptions: Sequence[str], embed: Embed) -> None:
        """Name a class before its first label, or describe it anew; `embed` is the model's own text encoder.

        Raises LabelError before any change.
        """
        self.check_class(name, descriptions)

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return labels as numbers, [batch], for `summarise`: class indices or values, NaN where a label is no number."""
        return torch.full((len(labels),), torch.nan)

    def strata(self, labels: Sequence[Label]) -> Sequence[int]:
        """Return which of its classes each item counts for: rehearsal balances them, metrics tell them apart.

        Empty where the task has no classes.
        """
        return []

    @abstractmethod
    def loss(self, features: Features, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        """Return the loss of each item, [batch]; every label has been admitted. `fresh`, bool [batch], tells new items."""

    @abstractmethod
    def scores(self, outputs: Outputs | None, labels: Sequence[Label]) -> Scores:
        """Judge outputs (None where the head was not ready) against labels that may not have been admitted yet."""

    @abstractmethod
    def losses(self, scores: Scores) -> Tensor:
        """Return what drift detectors watch: the loss of each judged item, [batch], about 0..1."""

    @abstractmethod
    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return the task's metrics over some items: their scores, and their targets as the column "target"."""

    @abstractmethod
    def answers(self, outputs: Outputs, top_k: int | None) -> list[Answer]:
        """Decode outputs into what /predict says."""

    def as_tensors(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return the answers as tensors by name, batch first: what an exported model puts out. Raises NotExportable."""
        raise NotExportable(f"the answers of the head {type(self).__name__} are no plain tensors")

    def settled(self, outputs: Outputs) -> list[Answer]:
        """Return answers that leave nothing to chance: what two versions are compared by."""
        return self.answers(outputs, 1)

    def explained(self, outputs: Outputs, label: Label | None) -> Tensor:
        """Return the number that an explanation shares out over the parts of an instance, [batch].

        Raises LabelError for a label that the head does not know, and NotExplainable.
        """
        raise NotExplainable(f"the head {type(self).__name__} does not say which number explains its answers")

    def foremost(self, answer: Answer) -> Label | None:
        """Return what is explained of an answer unless a label is named; None where there is but one thing to explain."""
        return answer.get("label")

    def kept(self, answer: Answer) -> Answer:
        """Return what of an answer is kept until its label comes: what `judge` needs, and little more."""
        return {}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return the scores of an answer that was served, as far as what was kept of it tells them."""
        return {}

    def observe(self, features: Features, outputs: Outputs | None, labels: Sequence[Label], weights: Tensor) -> None:
        """Take items, with weights [batch], into running statistics.

        They have been judged by `outputs` (None where the head was not ready).

        Called by the learner only, before it trains; every label has been admitted.
        """

    def describe(self) -> dict[str, float]:
        """Return what operators want to see of the head's inner state, by name."""
        return {}

    @property
    def ready(self) -> bool:
        """Whether the head can answer yet (a classifier can't before its first class)."""
        return True

    @property
    def labels(self) -> list[str]:
        """The class names in index order; empty where the task has none."""
        return []

    descriptions: Mapping[str, Sequence[str]] = MappingProxyType({})
    """The descriptions of the classes that have any, by name."""


class OnlineModel(nn.Module):
    """An input kind, an encoder and a head. Subclass it, or give it other parts, for a model of your own."""

    anchor: Tensor

    def __init__(self, *, input: InputKind, encoder: Encoder, head: Head) -> None:
        super().__init__()
        head.check(input)
        self.input = input
        self.encoder = encoder
        self.head = head
        self.register_buffer("anchor", torch.empty(0), persistent=False)  # it tells the device without a search

    def forward(self, batch: Batch) -> Outputs:
        """Return the head's raw outputs for one collated batch."""
        return self.head(self.encoder(batch))

    def collate(self, prepared: Sequence[Any]) -> Batch:
        """Collate prepared instances into tensors on the model's device."""
        batch, device = self.input.collate(prepared), self.device
        if device.type == "cpu":
            return batch
        if device.type == "cuda":  # only from pinned memory a copy does not wait for the one who asks for it
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}

    def declare(self, name: str, descriptions: Sequence[str]) -> None:
        """Name a class before its first label, or describe it anew. Raises LabelError before any change."""
        with torch.no_grad():
            self.head.declare(name, descriptions, self._embed)

    def _embed(self, texts: Sequence[str]) -> Tensor:
        features: Tensor = self.encoder(self.collate([self.input.prepare(text) for text in texts]))
        return features

    @property
    def device(self) -> torch.device:
        """The device that the parameters live on."""
        return self.anchor.device

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the named parameters that updates change."""
        named = chain.from_iterable(part.named_parameters(prefix) for prefix, part in self.changing())
        return ((name, parameter) for name, parameter in named if parameter.requires_grad)

    def changing(self) -> Sequence[tuple[str, nn.Module]]:
        """Return the parts that hold what updates may change, with the prefixes of their names: all but a frozen encoder.

        A backbone has hundreds of tensors: to walk over them takes longer than a step of a small head.
        """
        if not self.encoder.frozen or type(self) is not OnlineModel:  # a model of the user's own may hold more
            return [("", self)]
        return [(name, part) for name, part in self.named_children() if part is not self.encoder]

    def rates(self) -> dict[str, float]:
        """Return the factor on the learning rate of each trainable parameter: its expert's, what its half says, or 1."""
        experts = {f"{name}.": module.rate for name, module in self.named_modules() if isinstance(module, Expert)}
        said = {f"{half}.{name}": factor for half, module in self._halves() for name, factor in module.rates().items()}
        return {
            name: next((factor for prefix, factor in experts.items() if name.startswith(prefix)), said.get(name, 1.0))
            for name, _ in self.trainable()
        }

    def split_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (frozen, live) tensors by name: what no update changes, and what each one may."""
        live = self.live_state()
        return {name: tensor for name, tensor in self.state_dict().items() if name not in live}, live

    def live_state(self) -> dict[str, Tensor]:
        """Return the tensors by name that each update may change."""
        changing = self.changing()
        state = {name: tensor for prefix, part in changing for name, tensor in part.state_dict(prefix=_dotted(prefix)).items()}
        halves = self._halves() if changing[0][1] is self else (("head", self.head),)
        fixed = {f"{half}.{name}" for half, module in halves for name in module.fixed()}
        return {name: tensor for name, tensor in state.items() if name not in fixed}

    def _halves(self) -> Sequence[tuple[str, Half]]:
        return ("encoder", self.encoder), ("head", self.head)


def _dotted(prefix: str) -> str:
    return f"{prefix}." if prefix else ""
