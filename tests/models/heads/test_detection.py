from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from models.base import OnlineModel
from models.detectors import build_detector
from models.errors import LabelError, SpecificationError
from models.registry import build_model
from models.scenes import size_of
from service.demo.scenes import scenes
from service.learning.update import Item, LearningState
from service.settings import LearningSettings

SIZE = 64
SPEC = {"input": {"kind": "scene", "size": SIZE}, "encoder": {"name": "raw"}, "head": {"name": "detection"}}
SETTINGS = LearningSettings(
    step_items=4, rehearse=1, warm_up=0, average=0.9, window=50, optimizer={"name": "adam", "lr": 0.0005}
)
STREAM = list(islice(scenes(np.random.default_rng(0), SIZE), 600))


def built(**options: Any) -> OnlineModel:
    return build_model({**SPEC, "head": {"name": "detection", **options}})


def items(model: OnlineModel, stream: list[Any]) -> dict[int, Item]:
    return {seq: Item(model.input.prepare(picture), label) for seq, (picture, label) in enumerate(stream, 1)}


def learn(state: LearningState, known: dict[int, Item], first: int, last: int) -> None:
    for start in range(first, last + 1, 4):
        state.update(state.plan(range(start, min(start + 4, last + 1)), known), known)


def answers(model: OnlineModel, pictures: list[bytes], top_k: int | None = None) -> list[dict[str, Any]]:
    with torch.inference_mode():
        return model.head.answers(model(model.collate([model.input.prepare(each) for each in pictures])), top_k)


@pytest.fixture(scope="module")
def taught() -> LearningState:
    """Return a state that has seen squares and circles, large ones, one in a picture."""
    state = LearningState(built(), SETTINGS)
    learn(state, items(state.model, EASY), 1, len(EASY))
    return state


def easy(rng: np.random.Generator) -> tuple[bytes, dict[str, Any]]:
    """Return one bright square or bar on a dark ground."""
    left, top = (int(each) for each in rng.integers(2, 30, 2))
    tall = bool(rng.integers(2))
    box = [left, top, left + (16 if tall else 28), top + 28]
    pixels = np.full((SIZE, SIZE, 3), 30, dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 200
    return png(pixels), {"boxes": [[float(each) for each in box]], "labels": ["bar" if tall else "square"]}


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


EASY = [easy(rng) for rng in [np.random.default_rng(1)] for _ in range(320)]


def test_things_are_found_and_named(taught: LearningState) -> None:
    window = taught.metrics()["window"]
    assert window["map_50"] > 0.9
    assert window["f1"] > 0.8


def test_boxes_are_in_pixels_of_the_picture_as_it_was_sent(taught: LearningState) -> None:
    picture, _ = EASY[-1]
    with Image.open(io.BytesIO(picture)) as opened:
        larger = opened.resize((3 * SIZE, 2 * SIZE), Image.Resampling.NEAREST)
    (answer,) = answers(taught.model, [picture])
    (scaled,) = answers(taught.model, [png(np.asarray(larger))])
    assert answer["boxes"]
    assert scaled["labels"] == answer["labels"]
    for box, wide in zip(answer["boxes"], scaled["boxes"], strict=True):
        assert wide == pytest.approx([3 * box[0], 2 * box[1], 3 * box[2], 2 * box[3]], abs=1.0)


def test_labels_in_pixels_of_a_larger_picture_teach_the_same(taught: LearningState) -> None:
    model, (picture, label) = taught.model, EASY[-1]
    batch = model.collate([model.input.prepare(picture)])
    larger = {**batch, "sent": batch["sent"] * torch.tensor([3, 2])}
    scaled = {**label, "boxes": [[3 * a, 2 * b, 3 * c, 2 * d] for a, b, c, d in label["boxes"]]}
    fresh = torch.ones(1, dtype=torch.bool)
    torch.testing.assert_close(model.head.loss(larger, [scaled], fresh), model.head.loss(batch, [label], fresh))
    assert model.head.loss(larger, [label], fresh).item() > 2 * model.head.loss(batch, [label], fresh).item()


def test_it_goes_on_from_its_saved_state_to_the_bit() -> None:
    whole, first, second = (LearningState(built(), SETTINGS) for _ in range(3))
    known = items(whole.model, STREAM[:48])
    learn(whole, known, 1, 48)
    learn(first, known, 1, 24)
    frozen, live = first.model.split_state()
    second.load(first.updates, {**frozen, **live}, first.part_tensors())
    learn(second, known, 25, 48)
    assert second.model_bytes() == whole.model_bytes()
    assert second.learner_bytes() == whole.learner_bytes()


def test_a_picture_with_nothing_in_it_is_a_label_too(taught: LearningState) -> None:
    head = taught.model.head
    empty = head.parse_label({"boxes": [], "labels": []})
    assert head.judge({"boxes": [], "labels": [], "scores": []}, empty)["f1"] == 1
    state = LearningState(built(), SETTINGS)
    learn(state, items(state.model, [(EASY[0][0], empty), EASY[1]]), 1, 2)
    assert state.updates == 1


@pytest.mark.parametrize(
    ("label", "says", "pointer"),
    [
        ({"boxes": [[0, 0, 5, 5]], "labels": []}, "1 boxes and 0 labels", "/labels"),
        ({"boxes": [[0, 0, 5, 5], [5, 5, 5, 9]], "labels": ["a", "b"]}, "x1 < x2", "/boxes/1"),
        ({"boxes": [[-9, 0, -5, 5]], "labels": ["a"]}, "outside", "/boxes/0"),
        ({"boxes": [[0, 0, 5, 5]] * 4, "labels": ["a"] * 4}, "the limit is 3", "/boxes"),
    ],
)
def test_a_label_that_tells_no_boxes_is_refused(label: Any, says: str, pointer: str) -> None:
    with pytest.raises(LabelError, match=says) as caught:
        built(max_boxes=3).head.parse_label(label)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize("box", [[20, 2, 28, 9], [2, 40, 9, 50]])
def test_a_box_with_nothing_in_its_picture_is_refused(box: list[float]) -> None:
    head, picture = built().head, png(np.zeros((40, 20, 3), dtype=np.uint8))  # 20 wide, 40 high
    with pytest.raises(LabelError, match="20 x 40 pixels") as caught:
        head.check_label({"boxes": [[19, 39, 90, 90], box], "labels": ["a", "b"]}, lambda: picture)
    assert caught.value.pointer == "/boxes/1"


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_the_size_of_a_picture_is_that_of_the_upright_one(format: str) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 20)).save(file, format, exif=exif)
    scene = build_model(SPEC).input
    assert size_of(file.getvalue()) == scene.prepare(file.getvalue())[1] == (20, 40)


@pytest.mark.parametrize("name", ["small", "retinanet_resnet50_fpn"])
def test_a_picture_loses_as_much_among_others_as_alone(name: str) -> None:
    model = built(detector=name, max_classes=3)
    pictures, labels = zip(*EASY[:3], strict=True)
    labels = (*labels[:2], {"boxes": [], "labels": []})
    model.head.admit(labels)
    batches = [model.collate([model.input.prepare(each) for each in part]) for part in (pictures, *([one] for one in pictures))]
    alone = [model.head.loss(batch, [label], torch.ones(1)) for batch, label in zip(batches[1:], labels, strict=True)]
    with model.head._learning():  # as torchvision itself has it
        theirs = [
            sum(model.head.detector([batch["pixels"][0] / 255], list(model.head._boxed(batch, [label]))).values())
            for batch, label in zip(batches[1:], labels, strict=True)
        ]
    together = model.head.loss(batches[0], labels, torch.ones(3))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, torch.stack(theirs), rtol=1e-4, atol=1e-5)


def test_no_side_of_a_box_begins_dead_whatever_the_seed() -> None:
    for seed in range(12):
        model = build_model({**SPEC, "head": {"name": "detection"}}, seed=seed)
        model.head.admit([label for _, label in EASY[:4]])
        batch = model.collate([model.input.prepare(picture) for picture, _ in EASY[:4]])
        model.head.loss(batch, [label for _, label in EASY[:4]], torch.ones(4)).sum().backward()
        gradient = model.head.detector.get_submodule("head.regression_head.bbox_reg").bias.grad
        assert (gradient != 0).all(), f"seed {seed}: {gradient}"
        begun = model.head.detector.head(list(model.head.detector.backbone(batch["pixels"] / 255).values()))
        assert (begun["bbox_regression"] > 0).float().mean((0, 1)).min() > 0.99, f"seed {seed}"


def test_a_class_too_many_is_refused_before_any_change() -> None:
    head = built(max_classes=1).head
    with pytest.raises(LabelError, match="max_classes = 1"):
        head.admit([{"boxes": [[0, 0, 1, 1]] * 2, "labels": ["a", "b"]}])
    assert not head.ready


def test_served_answers_are_judged_as_the_outputs_are(taught: LearningState) -> None:
    model, (picture, label) = taught.model, EASY[-1]
    with torch.no_grad():
        outputs = model(model.collate([model.input.prepare(picture)]))
    scores, (answer,) = model.head.scores(outputs, [label]), model.head.answers(outputs, None)
    judged = model.head.judge(model.head.kept(answer), label)
    assert judged == pytest.approx({name: column[0].item() for name, column in scores.items()}, nan_ok=True)


@pytest.mark.parametrize(
    "name",
    ["fcos_resnet50_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"],
)
def test_torchvisions_detectors_learn_and_answer(name: str) -> None:
    state = LearningState(built(detector=name, max_classes=3, train="head"), SETTINGS)
    before = state.frozen_bytes()
    learn(state, items(state.model, EASY[:2]), 1, 2)
    assert state.frozen_bytes() == before
    assert set(answers(state.model, [EASY[0][0]], 1)[0]) == {"boxes", "labels", "scores"}


def test_weights_are_taken_from_a_file_all_but_the_classes(tmp_path: Path) -> None:
    name, limits = "ssdlite320_mobilenet_v3_large", {"min_score": 0.2, "max_overlap": 0.5, "max_boxes": 5}
    trained = build_detector(name, "none", classes=90, **limits).state_dict()  # type: ignore[arg-type]
    torch.save(trained, tmp_path / "coco.pth")
    taken = build_detector(name, str(tmp_path / "coco.pth"), classes=3, **limits).state_dict()  # type: ignore[arg-type]
    assert torch.equal(trained["backbone.features.0.0.0.weight"], taken["backbone.features.0.0.0.weight"])
    assert any(trained[key].shape != tensor.shape for key, tensor in taken.items())
    torch.save({"backbone.x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SpecificationError, match="there is no tensor"):
        build_detector(name, str(tmp_path / "other.pth"), classes=3, **limits)  # type: ignore[arg-type]


def test_what_it_can_not_do_is_told() -> None:
    with pytest.raises(SpecificationError, match="takes scene, not image"):
        build_model({**SPEC, "input": {"kind": "image", "size": 64}})
    with pytest.raises(SpecificationError, match="is not one of small, fasterrcnn"):
        built(detector="yolo")
    with pytest.raises(SpecificationError, match="has none"):
        built(weights="DEFAULT")
