"""Rollback and forgetting under SIGKILL of everything: what was asked for is done, once, and leaves no byte."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog
from service.verify import consumed, verify_versions
from tests.faults.storm import SEED
from tests.running import DIGITS, RunningService, learn, wait_for
from tests.test_acts import files_with

Digits = list[tuple[list[float], str]]
BATCH = 6


def kill_in_acts(folder: Path, digits: Digits, kills: int) -> None:
    """Teach, ask for an act, kill all processes a moment later, start again, and see the act through."""
    print(f"FAULT_SEED={SEED}")
    choices = random.Random(SEED)
    service = RunningService(folder, DIGITS + "[store]\ncheckpoints = 3\n")
    forgotten: dict[int, bytes] = {}
    cut = 0
    service.start()
    for number in range(kills):
        with service.client() as client:
            sent = [
                ([*digits[(number * BATCH + n) % 1797][0][:63], 1e5 + number * BATCH + n + 0.125], "1") for n in range(BATCH)
            ]
            seqs = [each["seq"] for each in learn(client, sent)["accepted"]]
            if number % 3 == 2:
                version = client.get("/model").json()["model_version"]
                body: Any = {"to": choices.randrange(max(1, version - 5), version + 1), "reapply": number % 2 == 0}
                answer = client.post("/rollback", json=body)
            else:
                chosen = choices.sample(range(BATCH), 2)
                forgotten |= {seqs[n]: str(sent[n][0][63]).encode() for n in chosen}
                answer = client.post("/forget", json={"seqs": [seqs[n] for n in chosen]})
            assert answer.status_code == 202, answer.text
        time.sleep(choices.choice([0.0, 0.005, 0.01, 0.02, 0.05, 0.1]))
        service.kill()
        cut += state_of(service.data, answer.json()["seq"]) == "pending"
        service.start()
        with service.client() as client:
            where = answer.headers["Location"]
            told = wait_for(lambda where=where: seen(client, where), f"act {number} to be carried out")
            assert told["status"] in {"applied", "quarantined"}, told
            if told["status"] == "quarantined":  # a version that learned from what was forgotten since
                assert "forgotten" in told["reason"], told
    with service.client() as client:
        wait_for(lambda: client.get("/model").json()["lag"] == 0, "the backlog to be learned")
        assert {client.get(f"/feedback/{seq}").json()["status"] for seq in forgotten} == {"forgotten"}
    assert service.stop() == 0
    assert {needle: files_with(service.data, needle) for needle in forgotten.values()} == {n: [] for n in forgotten.values()}
    directory = DataDirectory(service.data).open()
    checkpoints = EmbeddedCheckpointStore(directory, keep=3)
    assert max(consumed(checkpoints).values()) == 1
    assert not set(consumed(checkpoints)) & set(forgotten)
    checkpoints.close()
    assert verify_versions(service.data)
    print(f"{kills} kills, {cut} of them before the act was carried out, {len(forgotten)} items forgotten")


def seen(client: Any, where: str) -> Any:
    told = client.get(where).json()
    return told if told["status"] != "pending" else None


def state_of(data: Path, seq: int) -> str:
    """Return what the disk says of an act after the kill."""
    directory = DataDirectory(data).open()
    log, checkpoints = EmbeddedFeedbackLog(directory), EmbeddedCheckpointStore(directory, keep=3)
    done = checkpoints.made_by(seq) is not None or bool(checkpoints.takers(seq))
    log.close()
    checkpoints.close()
    return "done" if done else "pending"


def test_acts_are_carried_out_whatever_is_killed(tmp_path: Path, digits: Digits) -> None:
    kill_in_acts(tmp_path, digits, kills=6)


@pytest.mark.long
def test_acts_are_carried_out_over_a_hundred_kills(tmp_path: Path, digits: Digits) -> None:
    kill_in_acts(tmp_path, digits, kills=100)
