"""Detection: what is in a picture, and where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, Field, PositiveInt, Strict
from torch import Tensor, nn
from torchvision.ops import nms
from typing_extensions import TypedDict

from models.base import Answer, Batch, Head, Label, Scores
from models.boxes import as_boxes, mean_average_precision, right_ones
from models.detectors import SMALL, build_detector, losses_of
from models.errors import LabelError, SpecificationError
from models.experts.base import Embed
from models.heads.classification import LabelName
from models.inputs import InputKind
from models.metrics import means
from models.scenes import Scene, size_of

MOST_BOXES = 1000  # of one label, before `max_boxes` is known

Coordinate = Annotated[float, Strict(), Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Box = Annotated[list[Coordinate], Field(min_length=4, max_length=4)]


class BoxesLabel(TypedDict):
    """What is in a picture: boxes [x1, y1, x2, y2] in pixels of the picture as it was sent, and the class of each."""

    boxes: Annotated[list[Box], Field(max_length=MOST_BOXES)]
    labels: Annotated[list[LabelName], Field(max_length=MOST_BOXES)]


class BoxesAnswer(BaseModel):
    """Boxes [x1, y1, x2, y2] in pixels of the picture as it was sent, their classes and scores, best first."""

    boxes: list[list[float]]
    labels: list[str]
    scores: list[float]


class Found(NamedTuple):
    """What was found in a batch of pictures, in pixels of the pictures as they were sent."""

    boxes: list[Tensor]
    """[found, 4] of each picture."""
    classes: list[Tensor]
    """Class indices, int64 [found]."""
    scores: list[Tensor]
    """[found], best first."""


class Detection(Head):
    """A detector of torchvision, or a small one, that learns from pictures whose things have been boxed.

    A class that is new takes the next of `max_classes` outputs; those that have no name yet learn that they are nowhere.
    """

    task = "detection"
    takes = "tensors"
    metric = "f1"
    higher_is_better = True
    averaged = ("f1", "precision", "recall")
    label_type = BoxesLabel
    example_label: Label = {"boxes": [[12.0, 8.0, 60.0, 44.0]], "labels": ["cat"]}  # noqa: RUF012  # read only
    answer_type = BoxesAnswer
    decides = "labels"

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        detector: Annotated[
            str, Field(description=f'A detector of torchvision.models.detection by name, or "{SMALL}", which learns on a CPU.')
        ] = SMALL,
        weights: Annotated[
            str, Field(description='A torchvision weights name, a local .pth or .safetensors file, or "none".')
        ] = "none",
        train: Annotated[Literal["all", "head"], Field(description='"head": the backbone is frozen.')] = "all",
        max_classes: Annotated[PositiveInt, Field(description="Classes there is room for; each costs a little.")] = 30,
        max_boxes: Annotated[
            int, Field(ge=1, le=MOST_BOXES, description="Boxes of an answer at most; a label with more is refused.")
        ] = 20,
        min_score: Annotated[float, Field(ge=0, lt=1, description="What is less sure is not answered.")] = 0.2,
        max_overlap: Annotated[
            float,
            Field(
                gt=0,
                le=1,
                description="Of two boxes that overlap more, as intersection over union, the better one is answered.",
            ),
        ] = 0.5,
    ) -> None:
        super().__init__()
        self.max_classes = self.most_classes = max_classes
        self.max_boxes = max_boxes
        self.max_overlap = max_overlap
        self.classes: dict[str, int] = {}
        self.detector = build_detector(
            detector, weights, classes=max_classes, min_score=min_score, max_overlap=max_overlap, max_boxes=max_boxes
        ).eval()
        self._frozen = train == "head"
        if self._frozen:
            self.detector.get_submodule("backbone").requires_grad_(False)

    @property
    def ready(self) -> bool:
        """Whether any class is known."""
        return bool(self.classes)

    @property
    def labels(self) -> list[str]:
        """The class names in index order."""
        return list(self.classes)

    def fixed(self) -> set[str]:
        """Return the names of the backbone's tensors where it is frozen."""
        return {name for name in self.state_dict() if name.startswith("detector.backbone.")} if self._frozen else set()

    def check(self, input: InputKind) -> None:
        """Raise SpecificationError for instances that are no scenes."""
        if not isinstance(input, Scene):
            raise SpecificationError("model.input.kind", f"the head detection takes scene, not {input.kind}")

    def forward(self, features: Batch) -> Found:
        """Return what is found in pictures {"pixels": uint8 [batch, 3, size, size], "sent": [batch, 2]}."""
        found = [self._known(**each) for each in self.detector(_pictures(features))]
        return Found(
            boxes=[boxes * scale for (boxes, _, _), scale in zip(found, _scales(features), strict=True)],
            classes=[classes for _, classes, _ in found],
            scores=[scores for _, _, scores in found],
        )

    def parse_label(self, value: Any) -> Any:
        """Return boxes and names. Raises LabelError for boxes that are none, too many, or not as many as names."""
        boxes, names = value["boxes"], value["labels"]
        if len(boxes) != len(names):
            raise LabelError(f"there are {len(boxes)} boxes and {len(names)} labels", "/labels")
        if len(boxes) > self.max_boxes:
            raise LabelError(f"there are {len(boxes)} boxes, the limit is {self.max_boxes}", "/boxes")
        for index, (left, top, right, bottom) in enumerate(boxes):
            if not (left < right and top < bottom):
                raise LabelError("a box is [x1, y1, x2, y2] with x1 < x2 and y1 < y2", f"/boxes/{index}")
            if right <= 0 or bottom <= 0:
                raise LabelError("the box is outside of every picture", f"/boxes/{index}")
        return {"boxes": boxes, "labels": names}

    def check_label(self, label: Label, instance: Callable[[], bytes]) -> None:
        """Raise LabelError for a box of which nothing is in this picture: nobody could find it."""
        if not label["boxes"]:
            return
        width, height = size_of(instance())
        for index, (left, top, _, _) in enumerate(label["boxes"]):
            if left >= width or top >= height:
                raise LabelError(f"the box is outside of the picture, which has {width} x {height} pixels", f"/boxes/{index}")

    def classes_of(self, label: Label) -> Sequence[str]:
        """Return the classes of the boxes."""
        return list(label["labels"])

    def admit(self, labels: Sequence[Label]) -> None:
        """Give each name that is new the next output. Raises LabelError when there is none left."""
        self._grow(_names(labels))

    def check_class(self, name: str, descriptions: Sequence[str]) -> None:
        """Raise LabelError for a class that `declare` would not take."""
        if descriptions:
            raise LabelError("a detector reads no descriptions")
        self._places([name])

    def declare(self, name: str, descriptions: Sequence[str], embed: Embed) -> None:
        """Name a class before its first label."""
        self.check_class(name, descriptions)
        self._grow([name])

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """Return how many boxes each picture has, [batch]."""
        return torch.tensor([float(len(label["boxes"])) for label in labels])

    def loss(self, features: Batch, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        """Return the sum of the detector's losses of each picture, [batch]."""
        with self._learning():
            return losses_of(self.detector, _pictures(features), list(self._boxed(features, labels)))

    def scores(self, outputs: Found | None, labels: Sequence[Label]) -> Scores:
        """Return F1, precision and recall of each picture's boxes, and what mean average precision is made of.

        A class that is met for the first time counts as missed.
        """
        places = self._places(_names(labels))
        if outputs is None:
            outputs = Found(*([torch.zeros(0)] * len(labels) for _ in Found._fields))
        judged = [
            self._judged(as_boxes(boxes.tolist()), classes.long().tolist(), scores.tolist(), label, places)
            for boxes, classes, scores, label in zip(*outputs, labels, strict=True)
        ]
        return {name: torch.tensor([each[name] for each in judged]) for name in judged[0]}

    def losses(self, scores: Scores) -> Tensor:
        """Return 1 - F1 of each picture."""
        return 1 - scores["f1"]

    def summarise(self, columns: Scores) -> dict[str, float]:
        """Return mean average precision at an overlap of 0.5, and mean F1, precision and recall of a picture."""
        scores, claims, truths = (
            torch.stack([columns[f"{name}.{index}"] for index in range(self.max_boxes)], 1)
            for name in ("score", "claim", "truth")
        )
        return {"map_50": mean_average_precision(scores, claims, truths), **means(columns, self.averaged)}

    def answers(self, outputs: Found, top_k: int | None) -> list[Answer]:
        """Return boxes, labels and scores of each picture, best first and at most top_k."""
        names = self.labels
        return [
            {
                "boxes": [[round(side, 2) for side in box] for box in boxes[:top_k].tolist()],
                "labels": [names[index] for index in classes[:top_k].tolist()],
                "scores": scores[:top_k].tolist(),
            }
            for boxes, classes, scores in zip(*outputs, strict=True)
        ]

    def kept(self, answer: Answer) -> Answer:
        """Return all of it."""
        return {name: answer[name] for name in ("boxes", "labels", "scores")}

    def judge(self, kept: Answer, label: Label) -> dict[str, float]:
        """Return all scores."""
        places = self._places([*kept["labels"], *label["labels"]])
        classes = [places[name] for name in kept["labels"]]
        return self._judged(as_boxes(kept["boxes"]), classes, kept["scores"], label, places)

    def _judged(
        self, boxes: Tensor, classes: Sequence[int], scores: Sequence[float], label: Label, places: dict[str, int]
    ) -> dict[str, float]:
        """Return the scores of one picture; boxes that are not there are NaN."""
        true = [places[name] for name in label["labels"]]
        right = right_ones(boxes, classes, as_boxes(label["boxes"]), true)
        hits, claimed = sum(right), len(right)
        claims = [float(index + 1 if is_right else -index - 1) for index, is_right in zip(classes, right, strict=True)]
        columns = {"score": scores, "claim": claims, "truth": [index + 1.0 for index in true]}
        return {
            "f1": 2 * hits / (claimed + len(true)) if claimed + len(true) else 1.0,
            "precision": hits / claimed if claimed else torch.nan,
            "recall": hits / len(true) if true else torch.nan,
            **{
                f"{name}.{index}": values[index] if index < len(values) else torch.nan
                for name, values in columns.items()
                for index in range(self.max_boxes)
            },
        }

    def _known(self, boxes: Tensor, labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, classes and scores of one picture: of outputs that have a name, and one class for each thing."""
        named = (labels <= len(self.classes)).nonzero().squeeze(1)
        kept = named[nms(boxes[named], scores[named], self.max_overlap)]
        return boxes[kept], labels[kept] - 1, scores[kept]

    def _boxed(self, batch: Batch, labels: Sequence[Label]) -> Iterator[dict[str, Tensor]]:
        """Yield what the detector learns from: boxes in its own pixels, cut to the picture, and their outputs."""
        side = batch["pixels"].shape[-1]
        for scale, label in zip(_scales(batch), labels, strict=True):
            boxes = (as_boxes(label["boxes"]).to(scale.device) / scale).clamp(0, side)
            there = (boxes[:, 2:] - boxes[:, :2] > 0).all(1)
            outputs = torch.tensor([self.classes[name] + 1 for name in label["labels"]], dtype=torch.int64, device=scale.device)
            yield {"boxes": boxes[there], "labels": outputs[there]}

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Have the detector return losses; its normalisations stay with their statistics, whatever a batch is."""
        self.detector.train()
        for module in self.detector.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        try:
            yield
        finally:
            self.detector.eval()

    def _places(self, names: Iterable[str]) -> dict[str, int]:
        """Return the classes as they will be when these names are known. Raises LabelError when there is no room."""
        places = {name: index for index, name in enumerate(dict.fromkeys([*self.classes, *names]))}
        if len(places) > self.max_classes:
            raise LabelError(
                f"class {list(places)[self.max_classes]!r} would be one more than max_classes = {self.max_classes}"
            )
        return places

    def _grow(self, names: Iterable[str]) -> None:
        self.classes = self._places(names)

    # Names travel with the weights, as bytes in a tensor, so that a checkpoint is complete in itself.

    def get_extra_state(self) -> Tensor:
        """Return the classes' names as UTF-8 JSON, uint8 [bytes]."""
        return torch.frombuffer(bytearray(json.dumps(list(self.classes)).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the classes' names of a checkpoint."""
        self.classes = {name: index for index, name in enumerate(json.loads(bytes(state.cpu().tolist())))}


def _names(labels: Sequence[Label]) -> Iterator[str]:
    return chain.from_iterable(label["labels"] for label in labels)


def _pictures(batch: Batch) -> list[Tensor]:
    """Return each picture as the detectors take it, float [3, size, size] of 0..1."""
    return list(batch["pixels"].float() / 255)


def _scales(batch: Batch) -> Tensor:
    """Return what coordinates in the detector's pixels are multiplied by, [batch, 4], to be those of the pictures as sent."""
    return batch["sent"].float().repeat(1, 2) / batch["pixels"].shape[-1]
