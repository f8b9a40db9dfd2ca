from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.templates import render
from tests.api.test_predict import PICTURES, b64, digit
from tests.api.test_problems import check_problem
from tests.running import DIGITS, RunningService, learn, wait_for

Digits = list[tuple[list[float], str]]

RECORDS = """
[model.input]
kind = "record"
fields = {age = "number", city = "string", member = "boolean"}
[model.encoder]
name = "tabular"
[model.head]
name = "{head}"
"""
BUSY = DIGITS + "[explanations]\nqueue = 1\nevaluations = 100000\n"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("busy"), BUSY) as running:
        yield running


def explained(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/explain", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["model-version"] == str(found["model_version"])
    return found


def check_complete(found: dict[str, Any], values: list[float]) -> None:
    assert sum(values) == pytest.approx(found["value"] - found["base_value"], rel=1e-9, abs=1e-9)


def test_a_vector_is_explained_number_by_number(client: httpx.Client, digits: Digits) -> None:
    learn(client, digits[:200])
    found = explained(client, instance=digits[0][0])
    predicted = client.post("/predict", json={"instances": [digits[0][0]]}).json()["predictions"][0]
    probability = predicted["scores"][predicted["label"]]
    assert found["label"] == predicted["label"]
    assert found["explained"] == "log_odds"
    assert found["value"] == pytest.approx(math.log(probability / (1 - probability)), rel=0.05)
    assert "mean" in found["baseline"]
    assert found["method"] == "permutations"
    assert found["evaluations"] <= 512
    assert len(found["attributions"]) == 64
    check_complete(found, found["attributions"])


def test_the_same_question_to_the_same_version_has_the_same_answer(client: httpx.Client, digits: Digits) -> None:
    learn(client, digits[:20])
    assert explained(client, instance=digits[3][0]) == explained(client, instance=digits[3][0])


def test_the_label_may_be_named_also_as_an_integer(client: httpx.Client, digits: Digits) -> None:
    learn(client, digits[:40])
    own = explained(client, instance=digits[0][0])
    for label in ("1", 1):
        other = explained(client, instance=digits[0][0], label=label)
        assert other["label"] == "1"
        assert (other["value"] == own["value"]) == (own["label"] == "1")
        check_complete(other, other["attributions"])


@pytest.mark.parametrize(("head", "label"), [("classification", "cat"), ("regression", 3.5)])
def test_a_record_is_explained_field_by_field(tmp_path: Path, head: str, label: Any) -> None:
    with RunningService(tmp_path, RECORDS.replace("{head}", head)) as service, service.client() as client:
        other = "dog" if head == "classification" else 9.0
        rows = [({"age": float(n), "city": ["Rome", "Oslo"][n % 2], "member": True}, [label, other][n % 2]) for n in range(80)]
        learn(client, rows)
        found = explained(client, instance={"age": 30.0, "city": "Rome", "member": None})
    assert found["attributions"].keys() == {"age", "city"}
    assert found["method"] == "exact"
    assert found["evaluations"] == 4
    assert ("label" in found) == (head == "classification")
    assert found["explained"] == ("log_odds" if head == "classification" else "value")
    assert abs(found["attributions"]["city"]) > abs(found["attributions"]["age"])
    check_complete(found, list(found["attributions"].values()))


def test_a_text_is_explained_word_by_word_with_the_places_of_the_words(tmp_path: Path) -> None:
    praise, blame = "Größe passt, sehr gut!", "Größe passt nicht, schlecht!"
    config = render("text", {"input": {"kind": "text"}})
    with RunningService(tmp_path, config) as service, service.client() as client:
        learn(client, [(praise, "positive"), (blame, "negative")] * 8)
        found = explained(client, instance=blame, label="negative")
        assert client.post("/explain", content=blame.encode(), headers={"Content-Type": "text/plain"}).status_code == 200
    assert [each["token"] for each in found["attributions"]] == ["Größe", "passt", "nicht", ",", "schlecht", "!"]
    assert all(blame[each["start"] : each["end"]] == each["token"] for each in found["attributions"])
    values = {each["token"]: each["value"] for each in found["attributions"]}
    assert values["schlecht"] > max(values["Größe"], values["passt"])
    check_complete(found, list(values.values()))


def test_a_picture_is_explained_patch_by_patch_and_drawn_where_a_png_is_asked_for(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, PICTURES) as service, service.client() as client:
        learn(client, [(b64(digit(instance)), label) for instance, label in digits[:32]])
        body = digit(digits[0][0])
        found = explained(client, instance=b64(body))
        assert [len(row) for row in found["attributions"]] == [7] * 7
        check_complete(found, [value for row in found["attributions"] for value in row])
        headers = {"Content-Type": "image/png"}
        assert client.post("/explain", content=body, headers=headers).json() == found
        named = client.post("/explain", content=body, headers=headers, params={"label": found["label"]})
        assert named.json() == found
        drawn = client.post("/explain", content=body, headers={**headers, "Accept": "image/png"})
        assert drawn.headers["content-type"] == "image/png"
        assert drawn.headers["model-version"] == str(found["model_version"])
        assert Image.open(io.BytesIO(drawn.content)).size == (448, 448)
        broken = client.post("/explain", content=body[:60], headers=headers)
        check_problem(broken, 422, "invalid")
        lying = client.post("/explain", content=body, headers={"Content-Type": "image/jpeg"})
        check_problem(lying, 422, "invalid")
        nonsense = client.post("/explain", json={"instance": {"b64": "!"}})
        check_problem(nonsense, 422, "invalid")
        assert nonsense.json()["errors"][0]["pointer"] == "/instance"


def test_a_prediction_is_explained_by_the_version_that_made_it_and_later_by_the_served_one(
    tmp_path: Path, digits: Digits
) -> None:
    body = {"instances": [digits[0][0]]}
    with RunningService(tmp_path, DIGITS + "[store]\ncheckpoints = 2\n") as service, service.client() as client:
        learn(client, digits[:20])
        first = client.post("/predict", json=body).json()
        asked = {"prediction_id": first["predictions"][0]["id"], "label": "1"}
        learn(client, digits[20:21])
        assert explained(client, **asked)["model_version"] == first["model_version"]
        learn(client, digits[21:22])
        learn(client, digits[22:23])
        assert explained(client, **asked)["model_version"] == first["model_version"] + 3


def test_a_full_queue_is_503_and_a_client_that_leaves_makes_room(busy: RunningService, digits: Digits) -> None:
    def send(seconds: float) -> httpx.Response | None:
        with busy.client() as client:
            try:
                return client.post("/explain", json={"instance": digits[0][0]}, timeout=seconds)
            except httpx.TimeoutException:
                return None

    with busy.client() as client:
        learn(client, digits[:20])
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(send, [0.5] * 8))
        refused = [answer for answer in answers if answer is not None and answer.status_code == 503]
        assert len(refused) == 6
        for answer in refused:
            check_problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
        assert client.post("/predict", json={"instances": [digits[0][0]]}).status_code == 200
        wait_for(lambda: client.get("/versions/0/compare/0").status_code == 200, "the examiner to be free")


def test_before_any_class_is_known_the_answer_is_409(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS) as running, running.client() as client:
        check_problem(client.post("/explain", json={"instance": [0.0] * 64}), 409, "no-classes")


@pytest.mark.parametrize(
    ("body", "kind", "pointer"),
    [
        ({}, "invalid", ""),
        ({"instance": None}, "invalid", ""),
        ({"instance": [0.0] * 64, "prediction_id": "x"}, "invalid", ""),
        ({"instance": [0.0] * 63}, "invalid", "/instance"),
        ({"instance": ["a"] * 64}, "invalid", "/instance/0"),
        ({"instance": [0.0] * 64, "label": "unheard of"}, "invalid", "/label"),
        ({"instance": [0.0] * 64, "label": ""}, "invalid", "/label"),
        ({"instance": [0.0] * 64, "lable": "1"}, "invalid", "/lable"),
        ({"prediction_id": "x"}, "unknown-prediction", "/prediction_id"),
    ],
)
def test_what_can_not_be_explained_is_422_with_a_pointer(client: httpx.Client, body: Any, kind: str, pointer: str) -> None:
    learn(client, [([0.0] * 64, "1"), ([1.0] * 64, "2")])
    answer = client.post("/explain", json=body)
    check_problem(answer, 422, kind)
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_label_for_a_regression_is_422(tmp_path: Path) -> None:
    with RunningService(tmp_path, RECORDS.replace("{head}", "regression")) as service, service.client() as client:
        check_problem(client.post("/explain", json={"instance": {"age": 3.0}, "label": 3.0}), 422, "invalid")


def test_what_is_not_json_is_400_and_another_media_type_415(client: httpx.Client) -> None:
    check_problem(client.post("/explain", content=b"{", headers={"Content-Type": "application/json"}), 400, "malformed")
    for media_type in ("text/csv", "image/png", "multipart/form-data"):
        answer = client.post("/explain", content=b"x", headers={"Content-Type": media_type})
        check_problem(answer, 415, "unsupported-media-type")


def test_a_service_that_stops_does_not_wait_for_an_explanation(tmp_path: Path, digits: Digits) -> None:
    slow = DIGITS + "[explanations]\nevaluations = 1000000\n[server]\ngrace_seconds = 6\n"
    with RunningService(tmp_path, slow) as service, service.client() as client, ThreadPoolExecutor(1) as pool:
        learn(client, digits[:20])
        waiting = pool.submit(client.post, "/explain", json={"instance": digits[0][0]})
        time.sleep(0.5)
        assert service.stop() == 0
        check_problem(waiting.result(), 503, "not-ready")
