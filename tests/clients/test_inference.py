"""The Open Inference Protocol: NVIDIA's client, unchanged, against a real service."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.access import Scope
from service.api.access import NEEDED
from service.client import Client, Feedback
from service.templates import render
from tests.api.test_access import Keyed
from tests.models.test_containers import JPEG
from tests.running import DIGITS, RunningService, learn

NAMED = DIGITS + '[serving]\nname = "digits"\n[limits]\ninstances = 8\n'
TENSOR = b'{"name": "vector", "shape": [1, 64], "datatype": "FP32"}'
DRAWN = np.arange(128, dtype=np.float32).reshape(2, 64) / 8


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run a service that knows three digits."""
    with RunningService(tmp_path_factory.mktemp("digits"), NAMED) as running:
        with running.client() as client:
            learn(client, [([float(number)] * 64, str(number % 3)) for number in range(12)])
        yield running


@pytest.fixture
def server(service: RunningService) -> Iterator[triton.InferenceServerClient]:
    with closing(called(service)) as server:
        yield server


def called(service: RunningService) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(service.url.removeprefix("http://"))


def tensor(name: str, array: np.ndarray, datatype: str, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def texts(*elements: str | bytes) -> np.ndarray:
    return np.array(elements, dtype=object)


def test_the_server_and_its_model_are_described(server: triton.InferenceServerClient, service: RunningService) -> None:
    assert server.is_server_live()
    assert server.is_server_ready()
    assert server.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert server.is_model_ready("digits")
    assert not server.is_model_ready("everlearn")
    described = server.get_model_metadata("digits")
    assert described["name"] == "digits"
    assert described["inputs"] == [{"name": "vector", "datatype": "FP64", "shape": [-1, 64]}]
    assert {each["name"]: (each["datatype"], each["shape"]) for each in described["outputs"]} == {
        "prediction_id": ("BYTES", [-1]),
        "label": ("BYTES", [-1]),
        "scores": ("FP64", [-1, -1]),
        "scores.names": ("BYTES", [-1, -1]),
    }
    (version,) = described["versions"]
    assert server.is_model_ready("digits", version)
    assert server.get_model_metadata("digits", version) == described
    assert not server.is_model_ready("digits", "999")


@pytest.mark.parametrize("sent_in_binary", [True, False])
@pytest.mark.parametrize("answered_in_binary", [True, False])
def test_answers_are_those_of_predict_in_json_and_in_binary(
    server: triton.InferenceServerClient, service: RunningService, sent_in_binary: bool, answered_in_binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput(name, answered_in_binary) for name in ("label", "scores", "scores.names")]
    asked = tensor("vector", DRAWN, "FP32", binary=sent_in_binary)
    result = server.infer("digits", [asked], outputs=outputs, request_id="r1")
    assert result.get_response()["id"] == "r1"
    with Client(service.url) as client:
        expected = client.predict(DRAWN)
    assert result.get_response()["model_version"] == str(expected[0].model_version)
    assert words(result.as_numpy("label")) == [each.answer["label"] for each in expected]
    assert words(result.as_numpy("scores.names")) == [list(each.answer["scores"]) for each in expected]
    np.testing.assert_allclose(result.as_numpy("scores"), [list(each.answer["scores"].values()) for each in expected])


def words(array: np.ndarray) -> Any:
    return np.vectorize(lambda each: each.decode() if isinstance(each, bytes) else each)(array).tolist()


def test_a_prediction_can_be_labelled_by_its_id(server: triton.InferenceServerClient, service: RunningService) -> None:
    result = server.infer("digits", [tensor("vector", DRAWN, "FP32")])
    ids = words(result.as_numpy("prediction_id"))
    with Client(service.url) as client:
        taken = client.feedback([Feedback(label="2", prediction_id=each) for each in ids], wait=30)
        assert taken.model_version is not None
    newer = server.infer("digits", [tensor("vector", DRAWN, "FP32")], model_version=str(taken.model_version))
    assert newer.get_response()["model_version"] == str(taken.model_version)


@pytest.mark.parametrize("datatype", ["FP16", "FP64", "UINT8", "INT32", "INT64"])
def test_numbers_of_any_type_are_numbers(server: triton.InferenceServerClient, datatype: str) -> None:
    numbers = DRAWN.astype(NUMPY[datatype])
    for binary in (True, False):
        result = server.infer("digits", [tensor("vector", numbers, datatype, binary=binary)])
        assert result.as_numpy("label").shape == (2,)


NUMPY = {"FP16": "f2", "FP64": "f8", "UINT8": "u1", "INT32": "i4", "INT64": "i8"}


def test_top_k_is_a_parameter(server: triton.InferenceServerClient) -> None:
    result = server.infer("digits", [tensor("vector", DRAWN, "FP32")], parameters={"top_k": 1})
    assert result.as_numpy("scores").shape == (2, 1)
    with pytest.raises(InferenceServerException, match="greater than or equal to 1"):
        server.infer("digits", [tensor("vector", DRAWN, "FP32")], parameters={"top_k": 0})


def test_a_refusal_has_the_form_of_the_protocol(server: triton.InferenceServerClient) -> None:
    asked = tensor("vector", DRAWN, "FP32")
    nine = tensor("vector", np.zeros((9, 64)), "FP64")
    for call, status, says in (
        (lambda: server.infer("nope", [asked]), 404, "there is no model 'nope'; there is 'digits'"),
        (lambda: server.infer("digits", [asked], model_version="7777"), 404, "version 7777 is not served; version"),
        (lambda: server.infer("digits", [tensor("x", DRAWN, "FP32")]), 422, "no such input; there are vector"),
        (
            lambda: server.infer("digits", [tensor("vector", DRAWN[:, :3], "FP32")]),
            422,
            r"shape is \[-1, 64\], .*, not \[2, 3\]",
        ),
        (lambda: server.infer("digits", [tensor("vector", DRAWN.ravel(), "FP32")]), 422, r"not \[128\]"),
        (lambda: server.infer("digits", [tensor("vector", DRAWN * np.nan, "FP32")]), 422, "finite"),
        (lambda: server.infer("digits", [nine]), 422, "9 instances, and one request may have 8"),
        (lambda: server.infer("digits", [asked, asked]), 422, "two of this name"),
        (lambda: server.infer("digits", [tensor("vector", DRAWN > 1, "BOOL")]), 422, "its elements are numbers"),
        (lambda: server.infer("digits", [asked], outputs=[triton.InferRequestedOutput("y")]), 422, "no such output"),
        (lambda: server.infer("digits", [asked], request_compression_algorithm="gzip"), 415, "gzip"),
        (lambda: server.get_model_config("digits"), 404, "nothing at this path"),
    ):
        with pytest.raises(InferenceServerException, match=says) as caught:
            call()
        assert caught.value.status() == str(status)


@pytest.mark.parametrize(
    ("body", "length", "says"),
    [
        (b"{", None, "Invalid JSON"),
        (b'{"inputs": []}', None, "inputs"),
        (b'{"inputs": [{"name": "vector", "shape": [1, 64], "datatype": "FP99", "data": []}]}', None, "datatype"),
        (b'{"inputs": [{"name": "vector", "shape": [1, 64], "datatype": "FP32", "data": [1]}]}', None, "64 elements, and 1"),
        (b'{"inputs": [{"name": "vector", "shape": [1, 64], "datatype": "FP32", "data": ["1"]}]}', None, "element 0"),
        (b'{"inputs": [{"name": "vector", "shape": [1, 64], "datatype": "UINT8", "data": [256]}]}', None, "element 0"),
        (b'{"inputs": [{"name": "vector", "shape": [1, 64], "datatype": "FP32"}]}', None, "data is a list"),
        (b'{"inputs": [{"name": "vector", "shape": [1073741824, 64], "datatype": "FP32", "data": []}]}', None, "may have 8"),
        (
            b'{"inputs": [{"name": "vector", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 4}}]}',
            None,
            "0 b",
        ),
        (b'{"inputs": [' + b",".join([TENSOR] * 1001) + b"]}", None, "at most 1000 items"),
        (b'{"inputs": [' + TENSOR + b'], "outputs": [' + b",".join([b"{}"] * 1001) + b"]}", None, "at most 1000 items"),
        (
            b'{"inputs": [' + TENSOR + b'], "outputs": [{"name": "label"}, {"name": "label"}]}',
            None,
            "'label': it is asked for twice",
        ),
        (b"{}....", "99", "99, and the body has 6 bytes"),
        pytest.param(b"{}....", "9" * 5000, "and the body has 6 bytes", id="a length of 5000 digits"),
        (b"{}....", "-1", "Inference-Header-Content-Length"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(service: RunningService, body: bytes, length: str | None, says: str) -> None:
    headers = {"Content-Type": "application/json"} | ({} if length is None else {"Inference-Header-Content-Length": length})
    answer = httpx.post(f"{service.url}/v2/models/digits/infer", content=body, headers=headers)
    assert answer.status_code in {400, 422}
    assert answer.json().keys() == {"error"}
    assert says in answer.json()["error"]


def binary_body(data: bytes, size: int, datatype: str = "BYTES", name: str = "text") -> tuple[bytes, dict[str, str]]:
    inputs = [{"name": name, "shape": [1], "datatype": datatype, "parameters": {"binary_data_size": size}}]
    head = json.dumps({"inputs": inputs}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (struct.pack("<I", 2**32 - 1) + b"a", 5),
        (b"\x01\x00", 2),
        (struct.pack("<I", 1) + b"\xff", 5),
        (struct.pack("<I", 1) + b"a" + b"behind", 5),
        (struct.pack("<I", 1) + b"a", 6),
    ],
    ids=["a length that lies", "half a length", "no UTF-8", "more than is said", "less than is said"],
)
def test_bytes_that_are_not_what_they_say_are_refused(text_service: RunningService, data: bytes, size: int) -> None:
    body, headers = binary_body(data, size)
    answer = httpx.post(f"{text_service.url}/v2/models/everlearn/infer", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json().keys() == {"error"}


@pytest.fixture(scope="module")
def text_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("text"), render("text")) as running:
        with running.client() as client:
            learn(client, [("a joy", "positive"), ("a bore", "negative")] * 8)
        yield running


def test_texts_are_elements(text_service: RunningService) -> None:
    with closing(called(text_service)) as server:
        for binary in (True, False):
            result = server.infer("everlearn", [tensor("text", texts("a joy", "a bore"), "BYTES", binary=binary)])
            assert words(result.as_numpy("label")) == ["positive", "negative"]


def test_records_are_columns_and_pictures_are_their_bytes(tmp_path: Path) -> None:
    numbers = render("numbers")
    (tmp_path / "numbers").mkdir()
    (tmp_path / "pictures").mkdir()
    with RunningService(tmp_path / "numbers", numbers) as service, closing(called(service)) as server:
        with service.client() as client:
            learn(client, [({"age": 30.0 + number, "city": "Bern", "member": True}, float(number)) for number in range(8)])
        described = {each["name"]: each["datatype"] for each in server.get_model_metadata("everlearn")["inputs"]}
        assert described == {"age": "FP64", "city": "BYTES", "member": "BOOL"}
        ages = tensor("age", np.array([31.0, np.nan]), "FP64")
        cities = tensor("city", texts("Bern", "Oslo"), "BYTES")
        members = tensor("member", np.array([True, False]), "BOOL")
        result = server.infer("everlearn", [ages, cities, members])
        assert np.isfinite(result.as_numpy("value")).all()
        assert server.infer("everlearn", [ages]).as_numpy("low").shape == (2,)  # a column that is not there is missing
        with pytest.raises(InferenceServerException, match="different numbers of rows"):
            server.infer("everlearn", [ages, tensor("city", texts("Bern"), "BYTES")])
    pictures = '[model.input]\nkind = "image"\nsize = 16\n[model.encoder]\nname = "convolutional"\n'
    config = pictures + '[model.head]\nname = "multilabel"\nexperts = ["linear"]\n'
    with RunningService(tmp_path / "pictures", config) as service, closing(called(service)) as server:
        with Client(service.url) as client:
            client.feedback([Feedback(label=["a", "b"], instance=JPEG), Feedback(label=[], instance=JPEG)], wait=30)
            (expected,) = client.predict([JPEG])
        result = server.infer("everlearn", [tensor("image", texts(JPEG), "BYTES")])
        assert words(result.as_numpy("scores.names")) == [list(expected.answer["scores"])]
        with pytest.raises(InferenceServerException, match="not a readable JPEG"):
            server.infer("everlearn", [tensor("image", texts(b"no picture"), "BYTES")])


def test_everything_else_is_json_in_an_element(tmp_path: Path) -> None:
    with RunningService(tmp_path, render("behaviour")) as service, closing(called(service)) as server:
        with service.client() as client:
            learn(client, [(["home", "cart"], "pay"), (["home"], "cart")] * 4)
        assert server.get_model_metadata("everlearn")["inputs"] == [{"name": "instances", "datatype": "BYTES", "shape": [-1]}]
        result = server.infer("everlearn", [tensor("instances", texts('["home"]', '["home", "cart"]'), "BYTES")])
        assert result.as_numpy("label").shape == (2,)
        with pytest.raises(InferenceServerException, match="no JSON"):
            server.infer("everlearn", [tensor("instances", texts("[home"), "BYTES")])


def test_who_may_not_predict_may_look_at_health_only(tmp_path: Path) -> None:
    holders: dict[str, list[Scope]] = {"reader": ["predict"], "teacher": ["feedback"]}
    with Keyed(tmp_path, **holders) as service, closing(called(service)) as server:
        assert server.is_server_ready()
        assert server.is_model_ready("everlearn")
        for headers, status in (({}, "401"), ({"Authorization": f"Bearer {service.keys['teacher']}"}, "403")):
            for call in (
                lambda headers: server.get_model_metadata("everlearn", headers=headers),
                lambda headers: server.infer("everlearn", [tensor("vector", DRAWN, "FP32")], headers=headers),
            ):
                with pytest.raises(InferenceServerException) as caught:
                    call(headers=dict(headers))
                assert caught.value.status() == status
        reader = {"Authorization": f"Bearer {service.keys['reader']}"}
        assert server.get_model_metadata("everlearn", headers=reader)["versions"] == ["0"]
        with pytest.raises(InferenceServerException, match="send feedback with a label first") as caught:
            server.infer("everlearn", [tensor("vector", DRAWN, "FP32")], headers=reader)
        assert caught.value.status() == "409"
    infer = [path for (_, path), scope in NEEDED.items() if path.startswith("/v2/models") and scope == "predict"]
    assert len(infer) == 4


def test_its_predictions_are_counted_with_the_others(service: RunningService, server: triton.InferenceServerClient) -> None:
    def counted() -> dict[str, float]:
        text = httpx.get(f"{service.url}/metrics", params={"names": "triton"}).text
        lines = [line.rpartition(" ") for line in text.splitlines() if 'model="digits"' in line]
        return {name.partition("{")[0]: float(value) for name, _, value in lines}

    before = counted()
    server.infer("digits", [tensor("vector", DRAWN, "FP32")])
    after = counted()
    assert after["nv_inference_request_success"] == before["nv_inference_request_success"] + 1
    assert after["nv_inference_request_failure"] == before["nv_inference_request_failure"]
    assert after["nv_inference_request_duration_us"] > before["nv_inference_request_duration_us"]
