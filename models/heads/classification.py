"""Classification whose classes can grow, by one expert or by several that are mixed online."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, Field, PositiveInt, Strict, StringConstraints
from torch import Tensor
from torch.nn import functional as F

from models.base import Answer, Head, Label, Scores
from models.encoders.text import sentence_embedding
from models.errors import LabelError, SpecificationError
from models.experts.base import Embed, Expert
from models.experts.bayes import Bayes
from models.experts.bilinear import Bilinear, ClassTexts, Vectors, Words
from models.experts.ensemble import DEFAULT_EXPERTS, NEIGHBOUR_MEMORY, ClassExperts, Ensemble, Hidden, gradient_experts
from models.experts.neighbours import ClassNeighbours
from models.experts.prototype import Prototype
from models.inputs import InputKind, Text
from models.metrics import classification_metrics, seen_and_unseen
from models.mixing import FLOOR, NOTHING, LogisticMix, by_name, let_sleep
from models.names import seemly

PRIOR_ITEMS = 10  # that each class is taken to have had beside its own: one label alone must not weigh as a rare class
WIDEST_ALIGNED = 4096  # features whose square W can have
KEPT_SCORES = 10  # of an answer, until its label comes

LabelName = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200), AfterValidator(seemly)]
LabelNumber = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]


class ClassAnswer(BaseModel):
    """The predicted class and the probability of each class, most probable first."""

    label: str
    scores: dict[str, float]


class Classification(Head):
    """Log probabilities of classes; a class that is new starts from zeros, in the order of the log."""

    task = "classification"
    metric = "accuracy"
    higher_is_better = True
    averaged: tuple[str, ...] = ("accuracy", "log_loss")
    label_type = LabelName | LabelNumber
    example_label: Label = "cat"
    answer_type: Any = ClassAnswer
    explains = "log_odds"
    decides = "label"

    last_seen: Tensor
    observed: Tensor
    shares: Tensor
    awake: Tensor
    """Which classes each expert can speak of, bool [experts, classes]: worked out when it changes."""

    share_fading = 0.9995  # per item: the shares are those of about the latest 2,000

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        experts: ClassExperts = list(DEFAULT_EXPERTS),  # noqa: B006  # read only
        hidden: Hidden = [128, 128],  # noqa: B006
        labels: Annotated[
            Literal["open", "closed"],
            Field(description='"open": an undeclared label becomes a new class. "closed": only POST /classes makes one.'),
        ] = "open",
        classes: Annotated[list[LabelName], Field(description="Classes that are known from the start.")] = [],  # noqa: B006
        max_classes: Annotated[PositiveInt, Field(description="A label that would make more is quarantined.")] = 1000,
        balance: Annotated[
            float,
            Field(ge=0, le=1, description="0 answers the likeliest class; 1 as if all classes were equally frequent."),
        ] = 0.0,
        descriptions: Annotated[
            str,
            Field(
                description='How bilinear reads the descriptions of classes. "words": learned word vectors; "encoder": the'
                " model's own text encoder; else a sentence-transformers model, by its local directory or name on the hub."
            ),
        ] = "words",
    ) -> None:
        super().__init__()
        if labels == "closed" and not classes:
            raise SpecificationError("model.head.classes", 'labels = "closed" needs the classes')
        if len(set(classes)) != len(classes):
            raise SpecificationError("model.head.classes", "a class is named twice")
        self.open = labels == "open"
        self.max_classes = self.most_classes = max_classes
        self.balance = balance
        self.classes: dict[str, int] = {}
        self.descriptions: dict[str, list[str]] = {}
        self._own_texts = "bilinear" in experts and descriptions == "encoder"
        self.experts = Ensemble(dict(_experts(experts, width, plain or width, hidden, descriptions)))
        self._trusted = [index for index, expert in enumerate(self.experts) if self._is_trusted(expert)]
        self.mix = LogisticMix(len(self.experts))
        self.register_buffer("last_seen", torch.zeros(0, dtype=torch.int64))  # [classes], counted in observed items
        self.register_buffer("observed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("shares", torch.zeros(0, dtype=torch.float64))  # [classes], faded counts of items
        self.register_buffer("awake", torch.zeros(len(self.experts), 0, dtype=torch.bool), persistent=False)
        self.register_load_state_dict_post_hook(Classification._wake)  # type: ignore[no-untyped-call]
        self._name(classes)

    @property
    def ready(self) -> bool:
        """Whether any class is known."""
        return bool(self.classes)

    @property
    def labels(self) -> list[str]:
        """The class names in index order."""
        return list(self.classes)

    def check(self, input: InputKind) -> None:
        """Raise SpecificationError for descriptions that the encoder can't read."""
        if self._own_texts and not isinstance(input, Text):
            raise SpecificationError("model.head.descriptions", f'"encoder" takes text inputs, not {input.kind}')

    def forward(self, features: Tensor) -> Tensor:
        """Return the log probabilities that each expert gives, [batch, experts, classes]."""
        each = self.experts.each(features).log_softmax(2)
        if not self._trusted or self._all_awake:
            return each
        return let_sleep(each, self.awake, each[:, self._trusted].logsumexp(1).log_softmax(1))

    def parse_label(self, value: str | int) -> str:
        """Return the class name. Raises LabelError for an undeclared one when the labels are closed."""
        name = str(value)
        if not self.open and name not in self.classes:
            raise LabelError(f"{name!r} is not one of the declared labels: {', '.join(self.classes)}")
        return name

    def classes_of(self, label: Label) -> Sequence[str]:
        """Return the class."""
        return [str(label)]

    def admit(self, labels: Sequence[Label]) -> None:
        """Add a class for each label that is new. Raises LabelError when there would be too many."""
        self.grow(map(str, labels))

    def grow(self, names: Iterable[str]) -> None:
        """Add the classes that are new among these names. Raises LabelError when there would be too many."""
        new = [name for name in dict.fromkeys(names) if name not in self.classes]
        if len(self.classes) + len(new) > self.max_classes:
            raise LabelError(f"class {new[-1]!r} would be one more than max_classes = {self.max_classes}")
        if new:
            self._name([*self.classes, *new])

    def check_class(self, name: str, descriptions: Sequence[str]) -> None:
        """Raise LabelError for a class that `declare` would not take."""
        if name not in self.classes and len(self.classes) >= self.max_classes:
            raise LabelError(f"class {name!r} would be one more than max_classes = {self.max_classes}")
        if descriptions and self._bilinear is None:
            raise LabelError("no expert of this model reads descriptions: it takes bilinear among model.head.experts")
        if self._bilinear is not None:
            self._bilinear.texts.check(descriptions)

    def declare(self, name: str, descriptions: Sequence[str], embed: Embed) -> None:
        """Name a class before its first label, or describe it anew."""
        self.check_class(name, descriptions)
        self.grow([name])
        if self._bilinear is None:
            return
        index = self.classes[name]
        self.descriptions[name] = list(descriptions)
        self._bilinear.describe(index, descriptions, embed)
        if self._own_texts and isinstance(prototype := getattr(self.experts, "prototype", None), Prototype):
            prototype.describe(index, self._bilinear.texts()[index])
        self._wake()

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return class indices, int64 [batch]; -1 for a class that is not known."""
        return torch.from_numpy(np.array(self._indices(labels), dtype=np.int64)).to(self.last_seen.device)

    def strata(self, labels: Sequence[Label]) -> list[int]:
        """Return class indices; -1 for a class that is not known."""
        return self._indices(labels)

    def loss(self, features: Tensor, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        """Return the cross-entropy of each item, added up over the experts that learn from it, [batch]."""
        targets = self.targets(labels)

        def loss_of(outputs: Tensor) -> Tensor:
            if self._bilinear is not None:  # a class without labels must not be taught that it never comes
                outputs = outputs.masked_fill(self._bilinear.unseen, NOTHING)
            return F.cross_entropy(outputs, targets, reduction="none")

        return self.experts.loss(features, fresh, loss_of)

    def scores(self, outputs: Tensor | None, labels: Sequence[Label]) -> Scores:
        """Return accuracy, log loss, and the predicted class with its probability.

        An item of a class that is not known yet is wrong and has no log loss.
        """
        targets = self.targets(labels)
        if outputs is None:
            nothing = torch.full((len(labels),), torch.nan)
            columns = dict.fromkeys(("log_loss", "predicted", "confidence", *(["unseen"] if self._bilinear else [])), nothing)
            return {"accuracy": torch.zeros(len(labels)), **columns}
        mixed = self._answered(outputs)  # [batch, classes]
        best, predicted = mixed.max(1)
        log_loss = -mixed.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
        return {
            "accuracy": (predicted == targets).float(),
            "log_loss": torch.where(targets >= 0, log_loss, torch.nan),
            "predicted": predicted.float(),
            "confidence": best.exp(),
            **self._unseen(targets),
        }

    def observe(self, features: Tensor, outputs: Tensor | None, labels: Sequence[Label], weights: Tensor) -> None:
        """Move the weights of the experts by what they said, and let the experts take the items in."""
        targets = self.targets(labels)
        if outputs is not None:
            known = targets < outputs.shape[2]  # the others were met for the first time: nobody could know them
            self.mix.observe(outputs[known], targets[known], weights[known])
        for expert in self.experts:
            expert.observe(features, targets, weights)
        self.last_seen[targets] = torch.arange(len(targets), device=targets.device) + self.observed + 1
        self.observed += len(targets)
        ages = torch.arange(len(targets) - 1, -1, -1, device=targets.device, dtype=torch.float64)
        self.shares *= self.share_fading ** len(targets)
        self.shares.index_add_(0, targets, self.share_fading**ages)
        self._wake()

    def losses(self, scores: Scores) -> Tensor:
        """Return 1 for each wrong answer, 0 for each right one."""
        return 1 - scores["accuracy"]

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return accuracy, balanced accuracy, kappa-M, macro F1, log loss and ECE over the window.

        Where classes can be described, also accuracy on those without labels so far, on the others, and the harmonic mean.
        """
        return {**classification_metrics(columns), **(seen_and_unseen(columns) if "unseen" in columns else {})}

    def answers(self, outputs: Tensor, top_k: int | None) -> list[Answer]:
        """Return label and scores of each item, most probable first, cut to top_k."""
        names = self.labels
        scores, indices = self._logits(outputs).softmax(1).topk(min(top_k or len(names), len(names)))  # [batch, k]
        rows = zip(scores.tolist(), indices.tolist(), strict=True)
        return [
            {"label": names[row[0]], "scores": dict(zip([names[i] for i in row], values, strict=True))} for values, row in rows
        ]

    def as_tensors(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return the probability of each class, [batch, classes], in the order of the labels."""
        return {"scores": self._logits(outputs).softmax(1)}

    def explained(self, outputs: Tensor, label: Label | None) -> Tensor:
        """Return the log odds of a class against all others, float64 [batch]; the only class has none, and 0 here."""
        index = self.classes.get(str(label))
        if index is None:
            raise LabelError(f"{label!r} is not one of the known labels")
        answered = self._answered(outputs).double()  # [batch, classes]
        if answered.shape[1] == 1:
            return answered.new_zeros(len(answered))
        others = torch.cat([answered[:, :index], answered[:, index + 1 :]], 1)
        return answered[:, index] - others.logsumexp(1)

    def kept(self, answer: Answer) -> Answer:
        """Return the scores of the likeliest classes, and how many classes there were."""
        return {"scores": dict(islice(answer["scores"].items(), KEPT_SCORES)), "classes": len(self.classes)}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return all scores; what is left for the classes whose score was not kept is taken to be spread evenly."""
        scores: dict[str, float] = kept["scores"]
        best = next(iter(scores))
        rest = (1 - sum(scores.values())) / max(1, kept["classes"] - len(scores))
        known = str(label) in scores or len(scores) < kept["classes"]
        probability = min(1.0, max(scores.get(str(label), rest), math.exp(FLOOR)))
        return {
            "accuracy": float(best == label),
            "log_loss": -math.log(probability) if known else math.nan,
            "predicted": self.classes.get(best, -1),
            "confidence": scores[best],
        }

    def describe(self) -> dict[str, float]:
        """Return the weight of each expert."""
        return by_name(self.experts.names, self.mix.weights)

    def _indices(self, labels: Sequence[Label]) -> list[int]:
        return [self.classes.get(str(label), -1) for label in labels]

    def _answered(self, outputs: Tensor) -> Tensor:
        """Return the log probabilities of the answer, [batch, classes]."""
        return self._logits(outputs).log_softmax(1)

    def _logits(self, outputs: Tensor) -> Tensor:
        """Return the logits of the answer, [batch, classes].

        A rare class is favoured by logit adjustment with running priors (Menon et al. 2021), as far as `balance` says.
        """
        mixed: Tensor = self.mix(outputs)
        if not self.balance:
            return mixed
        priors = (self.shares + PRIOR_ITEMS).log()
        priors = priors.where(self.last_seen > 0, priors.max())  # of a class without items nothing is known
        return mixed - self.balance * priors.to(mixed.dtype)

    @property
    def _bilinear(self) -> Bilinear | None:
        return getattr(self.experts, "bilinear", None)

    def _is_trusted(self, expert: Expert) -> bool:
        """Say whether an expert speaks for the others of a class that they do not know."""
        return isinstance(expert, Bilinear) if self._bilinear is not None else expert.memory is None

    def _unseen(self, targets: Tensor) -> Scores:
        """Return, where classes can be described, which items are of a class that was and has had no label."""
        if self._bilinear is None:
            return {}
        unseen = torch.cat([self._bilinear.unseen, self._bilinear.unseen.new_zeros(1)])  # -1, not known, is none of them
        return {"unseen": unseen[targets].float()}

    def _name(self, classes: Sequence[str]) -> None:
        """Name the classes, keeping what is known of those that were there."""
        self.classes = {name: index for index, name in enumerate(classes)}
        self._resize(len(classes))

    def _resize(self, classes: int) -> None:
        for expert in self.experts:
            expert.resize(classes)
        kept = self.last_seen[:classes]
        self.last_seen = torch.cat([kept, kept.new_full((classes - len(kept),), -(2**62))])
        self.shares = torch.cat([self.shares[:classes], self.shares.new_zeros(classes - len(kept))])
        self._wake()

    def _wake(self, *_: object) -> None:
        self.awake = torch.stack([expert.knows(self.last_seen, self.observed) for expert in self.experts])
        self._all_awake = bool(self.awake.all())

    # Names and descriptions travel with the weights, as bytes in a tensor, so that a checkpoint is complete in itself.

    def get_extra_state(self) -> Tensor:
        """Return the classes' names and descriptions as UTF-8 JSON, uint8 [bytes]."""
        described = {name: self.descriptions.get(name, []) for name in self.classes}
        return torch.frombuffer(bytearray(json.dumps(described).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the classes' names and descriptions of a checkpoint."""
        described: dict[str, list[str]] = json.loads(bytes(state.cpu().tolist()))
        self.classes = {name: index for index, name in enumerate(described)}
        self.descriptions = {name: texts for name, texts in described.items() if texts}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shape of the checkpoint before its tensors: it may have more classes, or fewer, than this head."""
        classes = len(state_dict[f"{prefix}last_seen"])
        if classes != len(self.last_seen):
            self._resize(classes)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _experts(
    names: Sequence[str], width: int, plain: int, hidden: Sequence[int], descriptions: str
) -> Iterator[tuple[str, Expert]]:
    """Yield the experts that are named, in order."""
    yield from gradient_experts(names, width, plain, hidden, outputs=0)
    if "bilinear" in names:
        yield "bilinear", Bilinear(width, 0, texts=_texts(descriptions, width), aligned=descriptions == "encoder")
    if "bayes" in names:
        yield "bayes", Bayes(plain, 0)
    if "prototype" in names:
        yield "prototype", Prototype(width, 0)
    if "neighbours" in names:
        yield "neighbours", ClassNeighbours(plain, 0, capacity=NEIGHBOUR_MEMORY)


def _texts(descriptions: str, width: int) -> ClassTexts:
    if descriptions == "words":
        return Words()
    if descriptions == "encoder":
        if width > WIDEST_ALIGNED:
            raise SpecificationError(
                "model.head.descriptions", f'"encoder" takes {WIDEST_ALIGNED} features at most, and these are {width}'
            )
        return Vectors(width)
    return Vectors(*sentence_embedding("model.head.descriptions", descriptions))
