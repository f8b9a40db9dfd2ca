from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.running import DIGITS, RunningService, learn

PICTURES = """
[model.input]
kind = "image"
size = 32
[model.encoder]
name = "torchvision"
backbone = "resnet18"
weights = "none"
train = "all"
[model.head]
name = "classification"
[learning.optimizer]
name = "adam"
lr = 0.001
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("pictures"), PICTURES) as running:
        yield running


def picture(color: str, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 40), color).save(file, format)
    return file.getvalue()


def test_before_any_class_is_known_the_answer_is_409(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RunningService(tmp_path_factory.mktemp("fresh"), DIGITS) as running, running.client() as client:
        answer = client.post("/predict", json={"instances": [[0.0] * 64]})
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("no-classes")


def test_every_instance_is_answered_with_label_scores_and_an_id(
    client: httpx.Client, digits: list[tuple[list[float], str]]
) -> None:
    learn(client, digits[:40])
    answer = client.post("/predict", json={"instances": [digits[0][0], digits[1][0]]})
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["model-version"] == str(body["model_version"])
    assert len(body["predictions"]) == 2
    for prediction in body["predictions"]:
        scores = list(prediction["scores"].values())
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert prediction["label"] == next(iter(prediction["scores"]))
        assert len(bytes.fromhex(prediction["id"])) == 16
    assert body["predictions"][0]["id"] != body["predictions"][1]["id"]


def test_top_k_cuts_the_scores(client: httpx.Client, digits: list[tuple[list[float], str]]) -> None:
    learn(client, digits[:40])
    whole = client.post("/predict", json={"instances": [digits[0][0]]}).json()["predictions"][0]
    cut = client.post("/predict", json={"instances": [digits[0][0]], "top_k": 2}).json()["predictions"][0]
    assert list(cut["scores"].items()) == list(whole["scores"].items())[:2]


def test_what_it_learned_it_predicts(client: httpx.Client, digits: list[tuple[list[float], str]]) -> None:
    learn(client, digits[:400])
    body = client.post("/predict", json={"instances": [instance for instance, _ in digits[400:500]]}).json()
    right = sum(p["label"] == label for p, (_, label) in zip(body["predictions"], digits[400:500], strict=True))
    assert right > 80


def digit(instance: list[float], format: str = "PNG") -> bytes:
    """Return a digit of 8x8 pixels as a picture of 32x32."""
    pixels = np.array(instance, dtype=np.uint8).reshape(8, 8) * 15
    file = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32)).save(file, format, lossless=True)
    return file.getvalue()


def b64(picture: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(picture).decode()}


def test_a_resnet_learns_from_pictures(pictures: RunningService, digits: list[tuple[list[float], str]]) -> None:
    with pictures.client() as client:
        for start in range(0, 320, 16):
            learn(client, [(b64(digit(instance)), label) for instance, label in digits[start : start + 16]])
        judged = digits[320:420]
        answer = client.post("/predict", json={"instances": [b64(digit(instance)) for instance, _ in judged]})
    right = sum(p["label"] == label for p, (_, label) in zip(answer.json()["predictions"], judged, strict=True))
    assert right > 50  # of 100, where chance is 10


def test_a_picture_is_the_same_as_base64_as_the_body_and_as_a_file(
    pictures: RunningService, digits: list[tuple[list[float], str]]
) -> None:
    with pictures.client() as client:
        learn(client, [(b64(digit(instance)), label) for instance, label in digits[:16]])
        for format in ("PNG", "WEBP"):
            body = digit(digits[0][0], format)
            media_type = f"image/{format.lower()}"
            answers = [
                client.post("/predict?top_k=3", content=body, headers={"Content-Type": media_type}),
                client.post("/predict", json={"instances": [b64(body)], "top_k": 3}),
                client.post("/predict?top_k=3", files=[("picture", ("a.png", body, media_type))]),
            ]
            assert [answer.status_code for answer in answers] == [200, 200, 200], answers[0].text
            scores = [answer.json()["predictions"][0]["scores"] for answer in answers]
            assert len(scores[0]) == 3
            assert scores[0] == scores[1] == scores[2]


def test_several_files_are_several_instances_in_their_order(
    pictures: RunningService, digits: list[tuple[list[float], str]]
) -> None:
    bodies = [digit(instance) for instance, _ in digits[:3]]
    with pictures.client() as client:
        learn(client, [(b64(digit(instance)), label) for instance, label in digits[:16]])
        files = client.post("/predict", files=[("pictures", (f"{n}.png", body, "image/png")) for n, body in enumerate(bodies)])
        listed = client.post("/predict", json={"instances": [b64(body) for body in bodies]})
    assert [p["scores"] for p in files.json()["predictions"]] == [p["scores"] for p in listed.json()["predictions"]]


def test_a_prediction_from_a_body_can_be_labelled_by_its_id(pictures: RunningService) -> None:
    with pictures.client() as client:
        learn(client, [(b64(picture("green")), "green")])
        sent = client.post("/predict", content=picture("lime"), headers={"Content-Type": "image/png"}).json()
        item = {"prediction_id": sent["predictions"][0]["id"], "label": "green"}
        answer = client.post("/feedback", json={"feedback": [item]}, headers={"Prefer": "wait=30"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "media_type", "says"),
    [
        (b"not a picture", "image/png", "not a readable"),
        (picture("red")[:60], "image/png", "broken"),
        (picture("red"), "image/jpeg", "holds a PNG"),
    ],
)
def test_a_picture_that_is_broken_or_lies_about_its_type_is_422(
    pictures: RunningService, body: bytes, media_type: str, says: str
) -> None:
    with pictures.client() as client:
        answer = client.post("/predict", content=body, headers={"Content-Type": media_type})
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_a_picture_over_the_pixel_limit_is_422(pictures: RunningService) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 2_000)).save(file, "PNG")
    with pictures.client() as client:
        answer = client.post("/predict", content=file.getvalue(), headers={"Content-Type": "image/png"})
    assert answer.status_code == 422
    assert "pixels" in answer.json()["detail"]
