"""Predictions that nobody labels, and labels that are corrected, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.processes import EXIT_CONFIG
from service.store import Entry
from service.store.embedded import DataDirectory, EmbeddedFeedbackLog
from service.templates import render
from tests.running import DIGITS, RunningService, everlearn, learn, wait_for

TIMEOUT = '\n[timeout]\nseconds = 0.5\nlabel = "no"\n'
INSTANCE = [1.0] * 64


def entries(data: Path) -> list[Entry]:
    log = EmbeddedFeedbackLog(DataDirectory(data).open())
    try:
        return log.read(0, 1000)
    finally:
        log.close()


def labels_of(data: Path, id: str) -> list[Any]:
    return [json.loads(entry.label) for entry in entries(data) if entry.prediction_id == id]


def test_a_prediction_without_a_label_gets_the_timeouts_and_a_real_one_replaces_it(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS + TIMEOUT, "--workers", "2") as service, service.client() as client:
        learn(client, [(INSTANCE, "yes"), (INSTANCE, "no")])
        lonely, clicked, late = (
            each["id"] for each in client.post("/predict", json={"instances": [INSTANCE] * 3}).json()["predictions"]
        )
        client.post("/feedback", json={"feedback": [{"prediction_id": clicked, "label": "yes"}]}).raise_for_status()
        wait_for(lambda: labels_of(service.data, late), "the sweep")
        correction = {"feedback": [{"prediction_id": late, "label": "yes"}]}
        assert client.post("/feedback", json=correction, headers={"Prefer": "wait=30"}).status_code == 200
        service.kill()
        service.start()  # it sweeps from the beginning again
        with service.client() as again:
            (sentinel,) = (each["id"] for each in again.post("/predict", json={"instances": [INSTANCE]}).json()["predictions"])
        wait_for(lambda: labels_of(service.data, sentinel), "the next sweep")
        assert [labels_of(service.data, id) for id in (lonely, clicked, late)] == [["no"], ["yes"], ["no", "yes"]]
        by_seq = {entry.seq: entry for entry in entries(service.data)}
        replaced = {by_seq[entry.replaces].prediction_id for entry in by_seq.values() if entry.replaces is not None}
        assert replaced == {late}
        assert service.stop() == 0
    verified = everlearn("replay", "--data", str(service.data), "--verify")
    assert verified.returncode == 0, verified.stderr


def test_a_prediction_that_can_not_have_the_timeouts_label_gets_none(tmp_path: Path) -> None:
    config = render("recommend").replace("[timeout]", "[timeout]\nseconds = 0.5\nlabel = false")
    asked = {"user": "u1", "item": "i1"}
    with RunningService(tmp_path, config) as service, service.client() as client:
        learn(client, [(asked, True)])
        answer = client.post("/predict", json={"instances": [{"user": "u1"}, asked]}).raise_for_status()
        ranking, single = (each["id"] for each in answer.json()["predictions"])
        wait_for(lambda: labels_of(service.data, single), "the sweep")
        assert [labels_of(service.data, id) for id in (ranking, single)] == [[], [False]]


@pytest.mark.parametrize(
    ("timeout", "reason"),
    [
        ('seconds = 5\nlabel = ["no"]', "timeout.label: ['no'] is no label of this model"),
        ("seconds = 5", "timeout.label: '' is no label of this model"),
        ('seconds = 100000\nlabel = "no"', "timeout.seconds: predictions are kept for 86400 s only"),
    ],
)
def test_a_timeout_that_can_not_be_is_told_in_one_line(tmp_path: Path, timeout: str, reason: str) -> None:
    config = tmp_path / "everlearn.toml"
    config.write_text(f"{DIGITS}\n[timeout]\n{timeout}\n")
    refused = everlearn("serve", "--config", str(config), "--data", str(tmp_path / "data"), "--port", "0")
    assert refused.returncode == EXIT_CONFIG
    assert refused.stderr.strip().splitlines()[-1].endswith(reason)
