"""Rollback, release, forget over HTTP, on one service whose versions the tests make in their order."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.running import RunningService, everlearn, learn, wait_for

Digits = list[tuple[list[float], str]]
WAIT = {"Prefer": "wait=30"}


def version_of(client: httpx.Client) -> int:
    number: int = client.get("/model").json()["model_version"]
    return number


def status(client: httpx.Client, seq: int) -> dict[str, Any]:
    body: dict[str, Any] = client.get(f"/feedback/{seq}").json()
    return body


def test_a_rollback_serves_the_answers_of_the_older_version(client: httpx.Client, digits: Digits) -> None:
    learn(client, digits[:30])
    target = version_of(client)
    before = client.post("/predict", json={"instances": [digits[100][0]]}).json()["predictions"][0]["scores"]
    seq = learn(client, digits[30:60])["log_seq"]
    assert client.post("/predict", json={"instances": [digits[100][0]]}).json()["predictions"][0]["scores"] != before
    answer = client.post("/rollback", json={"to": target}, headers=WAIT)
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=30")
    made = answer.json()["model_version"]
    after = client.post("/predict", json={"instances": [digits[100][0]]}).json()
    assert (after["model_version"], after["predictions"][0]["scores"]) == (made, before)
    row = client.get(f"/versions/{made}").json()
    assert (row["parent"], row["reason"], row["act"]) == (target, "rollback", answer.json()["seq"])
    assert row["sha256"] == client.get(f"/versions/{target}").json()["sha256"]
    skipped = status(client, seq)
    assert skipped["status"] == "skipped"
    assert f"version {made} went back" in skipped["reason"]
    assert status(client, answer.json()["seq"]) == {"seq": seq + 1, "status": "applied", "model_version": made}


def test_with_reapply_what_came_after_is_learned_again(client: httpx.Client, digits: Digits) -> None:
    learn(client, digits[60:70])
    target = version_of(client)
    seq = learn(client, digits[70:90])["log_seq"]
    answer = client.post("/rollback", json={"to": target, "reapply": True}, headers=WAIT).json()
    wait_for(lambda: client.get("/model").json()["lag"] == 0, "the backlog to be learned")
    again = status(client, seq)
    assert again["status"] == "applied"
    assert again["model_version"] > answer["model_version"]


def test_forgetting_is_answered_at_once_and_can_be_watched(client: httpx.Client, digits: Digits) -> None:
    sent = client.post(
        "/feedback", json={"feedback": [{"instance": digits[300][0], "label": "3", "key": "mine"}]}, headers=WAIT
    ).json()
    seq = sent["log_seq"]
    answer = client.post("/forget", json={"keys": ["mine"]})
    assert answer.status_code == 202
    where = answer.headers["Location"]
    done = wait_for(lambda: (told := client.get(where).json())["status"] == "applied" and told, "the forgetting")
    assert client.get(f"/versions/{done['model_version']}").json()["reason"] == "forget"
    assert status(client, seq) == {"seq": seq, "status": "forgotten"}
    retried = client.post("/feedback", json={"feedback": [{"instance": digits[300][0], "label": "3", "key": "mine"}]})
    assert retried.json()["accepted"] == [{"seq": seq}]
    again = client.post("/forget", json={"seqs": [seq]}, headers=WAIT)
    assert again.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/rollback", {"to": 10**6}, 404, "there is no version 1000000"),
        ("/rollback", {"to": -1}, 422, "/to: "),
        ("/rollback", {"to": 0, "also": 1}, 422, "/also: "),
        ("/release", {"version": 1}, 422, "/version: version 1 has nothing in quarantine"),
        ("/release", {"version": 10**6}, 404, "there is no version"),
        ("/forget", {"seqs": [10**6]}, 404, "there is no feedback with sequence number 1000000"),
        ("/forget", {"keys": ["unknown"]}, 404, "there is no feedback with the key 'unknown'"),
        ("/forget", {"source": "nobody"}, 404, "there is no feedback from the source 'nobody'"),
        ("/forget", {"seqs": [1], "source": "a"}, 422, "the body: give seqs, keys or source"),
        ("/forget", {}, 422, "the body: give seqs, keys or source"),
        ("/forget", {"seqs": []}, 422, "/seqs: "),
    ],
)
def test_what_can_not_be_done_is_told_and_not_logged(
    client: httpx.Client, path: str, body: Any, status: int, says: str
) -> None:
    before = client.get("/model").json()["log_seq"]
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    assert client.get("/model").json()["log_seq"] == before


def test_who_waits_for_a_forgetting_is_answered_when_all_is_erased(client: httpx.Client, digits: Digits) -> None:
    for _ in range(3):
        seq = learn(client, digits[400:402])["log_seq"]
        answer = client.post("/forget", json={"seqs": [seq]}, headers=WAIT)
        assert answer.status_code == 200
        assert status(client, seq)["status"] == "forgotten"
        told = client.get(answer.headers["Location"]).json()
        assert (told["status"], told["model_version"]) == ("applied", answer.json()["model_version"])


def test_only_acts_are_at_the_place_of_acts(client: httpx.Client, digits: Digits) -> None:
    seq = learn(client, digits[:1])["log_seq"]
    for number in (seq, 10**6, 0, -1, 2**70):
        assert client.get(f"/acts/{number}").status_code == 404


def test_an_act_can_not_be_forgotten(client: httpx.Client, digits: Digits) -> None:
    learn(client, digits[:1])
    seq = client.post("/rollback", json={"to": version_of(client)}, headers=WAIT).json()["seq"]
    assert client.post("/forget", json={"seqs": [seq]}).status_code == 404


def test_the_command_line_does_the_same_while_the_service_runs(
    service: RunningService, client: httpx.Client, digits: Digits
) -> None:
    learn(client, digits[:10])
    target = version_of(client)
    seq = learn(client, digits[10:20])["log_seq"]
    asked = everlearn("whatif", "--data", str(service.data), "--without", str(seq))
    assert asked.returncode == 0, asked.stderr
    assert f"seq {seq}, labelled" in asked.stdout
    done = everlearn("forget", str(seq), "--data", str(service.data))
    assert done.stderr.startswith("everlearn: carried out: version "), done.stderr
    done = everlearn("rollback", str(target), "--data", str(service.data))
    assert done.stderr.startswith("everlearn: carried out: version "), done.stderr
    wait_for(lambda: client.get("/versions", params={"limit": 1}).json()["versions"][0]["reason"] == "rollback", "the rollback")
    unknown = everlearn("forget", "99999", "--data", str(service.data))
    assert (unknown.returncode, unknown.stderr) == (78, "everlearn: there is no feedback with sequence number 99999\n")
    refused = everlearn("rollback", "99999", "--data", str(service.data))
    assert (refused.returncode, refused.stderr) == (78, "everlearn: not carried out: there is no version 99999\n")


def test_an_act_on_a_directory_without_a_service_is_carried_out_at_the_next_start(
    service: RunningService, digits: Digits
) -> None:
    with service.client() as client:
        seq = learn(client, digits[:2])["log_seq"]
    service.stop()
    said = everlearn("forget", str(seq), "--data", str(service.data))
    assert said.stderr == f"everlearn: seq {seq + 1} of the log: carried out when a service starts on this directory\n"
    service.start()
    with service.client() as client:
        wait_for(lambda: status(client, seq)["status"] == "forgotten", "the forgetting")
