from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.running import DIGITS, RunningService, learn, wait_for

Digits = list[tuple[list[float], str]]


def fresh_key() -> str:
    return uuid.uuid4().hex


def test_feedback_is_accepted_in_order_with_its_places_in_the_log(client: httpx.Client, digits: Digits) -> None:
    feedback = [{"instance": instance, "label": label} for instance, label in digits[:5]]
    answer = client.post("/feedback", json={"feedback": feedback})
    seqs = [item["seq"] for item in answer.json()["accepted"]]
    assert answer.status_code == 202
    assert seqs == sorted(set(seqs))
    assert answer.json()["log_seq"] == seqs[-1]
    assert answer.headers["location"] == f"/feedback/{seqs[-1]}"


def test_waiting_feedback_is_answered_by_the_version_that_contains_it(client: httpx.Client, digits: Digits) -> None:
    body = learn(client, digits[:1])
    status = client.get(f"/feedback/{body['log_seq']}").json()
    assert status["status"] == "applied"
    assert status["model_version"] <= body["model_version"]
    assert client.get("/model").json()["model_version"] >= body["model_version"]


@pytest.mark.parametrize("label", ["dog", 17, -3])
def test_a_label_that_is_new_becomes_a_class(client: httpx.Client, digits: Digits, label: str | int) -> None:
    learn(client, [(digits[0][0], label)])
    assert str(label) in client.get("/model").json()["labels"]


def test_a_retry_with_the_same_key_gets_the_same_place_and_is_applied_once(client: httpx.Client, digits: Digits) -> None:
    item = {"instance": digits[0][0], "label": digits[0][1], "key": fresh_key()}
    first = client.post("/feedback", json={"feedback": [item]}, headers={"Prefer": "wait=30"}).json()
    again = client.post("/feedback", json={"feedback": [item]}, headers={"Prefer": "wait=30"}).json()
    assert again["accepted"] == first["accepted"]
    assert client.get("/model").json()["log_seq"] == first["log_seq"]


def test_a_header_key_makes_the_retry_of_a_whole_request_harmless(client: httpx.Client, digits: Digits) -> None:
    body = {"feedback": [{"instance": instance, "label": label} for instance, label in digits[:3]]}
    headers = {"Idempotency-Key": f'"{fresh_key()}"'}
    first = client.post("/feedback", json=body, headers=headers)
    again = client.post("/feedback", json=body, headers=headers)
    assert again.json()["accepted"] == first.json()["accepted"]
    body["feedback"][1]["label"] = "other"
    other = client.post("/feedback", json=body, headers=headers)
    assert other.status_code == 422
    assert other.json()["type"].endswith("key-reused")


def test_a_known_key_with_other_content_is_refused_and_nothing_of_the_request_is_taken(
    client: httpx.Client, digits: Digits
) -> None:
    key = fresh_key()
    learn(client, digits[:1], key=key)
    before = client.get("/model").json()["log_seq"]
    reused = {"instance": digits[1][0], "label": "other", "key": key}
    answer = client.post("/feedback", json={"feedback": [{"instance": digits[2][0], "label": "1"}, reused]})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("key-reused")
    assert answer.json()["errors"][0]["pointer"] == "/feedback/1"
    assert client.get("/model").json()["log_seq"] == before


def test_retries_that_race_get_one_place_or_are_told_to_try_again(service: RunningService, digits: Digits) -> None:
    item = {"instance": digits[0][0], "label": digits[0][1], "key": fresh_key()}

    def send(_: int) -> httpx.Response:
        with service.client() as client:
            return client.post("/feedback", json={"feedback": [item]})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(24)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["log_seq"] for answer in answers if answer.status_code == 202}) == 1
    assert all(answer.json()["type"].endswith("key-busy") for answer in answers if answer.status_code == 409)


def test_an_unknown_prediction_is_refused_and_nothing_of_the_request_is_taken(client: httpx.Client, digits: Digits) -> None:
    learn(client, digits[:1])
    before = client.get("/model").json()["log_seq"]
    items = [{"instance": digits[0][0], "label": "1"}, {"prediction_id": "ab" * 16, "label": "1"}]
    answer = client.post("/feedback", json={"feedback": items})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("unknown-prediction")
    assert answer.json()["errors"][0]["pointer"] == "/feedback/1"
    assert client.get("/model").json()["log_seq"] == before


@pytest.mark.parametrize(
    ("item", "pointer"),
    [
        ({"label": "1"}, "/feedback/0"),
        ({"instance": [1.0] * 64, "prediction_id": "ab" * 16, "label": "1"}, "/feedback/0"),
        ({"instance": [1.0] * 63, "label": "1"}, "/feedback/0/instance"),
        ({"instance": [1.0] * 64, "label": 1.5}, "/feedback/0/label"),
        ({"instance": [1.0] * 64, "label": True}, "/feedback/0/label"),
        ({"instance": [1.0] * 64, "label": ""}, "/feedback/0/label"),
        ({"instance": [1.0] * 64}, "/feedback/0/label"),
        ({"instance": [1.0] * 64, "label": "1", "weight": 0}, "/feedback/0/weight"),
        ({"instance": [1.0] * 64, "label": "1", "colour": 0}, "/feedback/0/colour"),
        ({"instance": [1.0] * 64, "label": "1", "key": ""}, "/feedback/0/key"),
    ],
)
def test_an_item_with_something_wrong_is_422_and_points_at_it(client: httpx.Client, item: object, pointer: str) -> None:
    answer = client.post("/feedback", json={"feedback": [item]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_feedback_that_does_not_wait_is_pending_and_then_applied(client: httpx.Client, digits: Digits) -> None:
    seq = client.post("/feedback", json={"feedback": [{"instance": digits[0][0], "label": "1"}]}).json()["log_seq"]
    assert client.get(f"/feedback/{seq}").json()["status"] in {"pending", "applied"}
    wait_for(lambda: client.get(f"/feedback/{seq}").json()["status"] == "applied", "the item to be applied")


@pytest.mark.parametrize("seq", ["0", "999999", "-1", str(2**70)])
def test_a_sequence_number_that_was_never_given_is_404(client: httpx.Client, seq: str) -> None:
    assert client.get(f"/feedback/{seq}").status_code == 404


def test_a_late_label_judges_the_answer_that_was_served(tmp_path: Path) -> None:
    zero, one = [1.0] + [0.0] * 63, [0.0, 1.0] + [0.0] * 62
    with RunningService(tmp_path, DIGITS) as service, service.client() as client:
        learn(client, [(zero, "0")] * 5)
        answer = client.post("/predict", json={"instances": [one]}).json()["predictions"][0]
        assert answer["label"] == "0"
        learn(client, [(one, "1"), (zero, "0")] * 30)
        assert client.post("/predict", json={"instances": [one]}).json()["predictions"][0]["label"] == "1"
        before = client.get("/model").json()["metrics"]
        item = {"prediction_id": answer["id"], "label": "1"}
        client.post("/feedback", json={"feedback": [item]}, headers={"Prefer": "wait=30"})
        after = client.get("/model").json()["metrics"]
        assert after["items"] == before["items"] + 1
        assert after["accuracy"] == pytest.approx(before["accuracy"] * before["items"] / after["items"], abs=1e-5)
