"""Promises 1 and 2 under SIGKILL of every process at random moments."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog
from service.verify import consumed, verify_versions
from tests.running import DIGITS, RunningService, wait_for

Items = list[tuple[Any, Any]]


@dataclass
class Sender:
    """A client that sends each item with a key until it is acknowledged, whatever happens to the service."""

    service: RunningService
    items: Items
    prefix: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    stopping: bool = False
    contradictions: list[str] = field(default_factory=list)

    def run(self) -> None:
        number = 0
        while not self.stopping:
            instance, label = self.items[number % len(self.items)]
            self.send(f"{self.prefix}{number}", instance, label)
            number += 1

    def send(self, key: str, instance: Any, label: Any) -> None:
        item = {"instance": instance, "label": label, "key": key}
        tries = 0
        while not self.stopping:
            try:
                with self.service.client() as client:
                    seq = client.post("/feedback", json={"feedback": [item]}).raise_for_status().json()["log_seq"]
                    if tries == 0 and int(key.removeprefix(self.prefix)) % 7 == 0:  # now and then, a retry of what went well
                        again = client.post("/feedback", json={"feedback": [item]}).raise_for_status().json()["log_seq"]
                        if again != seq:
                            self.contradictions.append(f"{key}: {seq} and {again}")
            except httpx.HTTPError:
                tries += 1
                time.sleep(0.02)
            else:
                self.acknowledged[key] = seq
                return


def check_promises(data: Path, senders: list[Sender]) -> int:
    """Check the log and the versions against what clients were told; return how many items were acknowledged."""
    directory = DataDirectory(data).open()
    feedback, checkpoints = EmbeddedFeedbackLog(directory), EmbeddedCheckpointStore(directory, keep=2)
    entries = feedback.read(0, 10**9)
    learned = consumed(checkpoints)
    feedback.close()
    checkpoints.close()
    by_key = {entry.key: entry.seq for entry in entries}
    acknowledged = {key: seq for sender in senders for key, seq in sender.acknowledged.items()}
    assert not [contradiction for sender in senders for contradiction in sender.contradictions]
    assert {key: by_key.get(key) for key in acknowledged} == acknowledged, "acknowledged feedback is missing or elsewhere"
    assert len(by_key) == len(entries), "a key has two entries"
    assert set(learned.values()) == {1}, "an entry was applied twice"
    assert set(learned) == {entry.seq for entry in entries}, "an entry was not applied"
    return len(acknowledged)


def kill_and_restart(folder: Path, config: str, items: Items, kills: int) -> None:
    choices = random.Random(11)
    with RunningService(folder, config, "--workers", "2") as service:
        senders = [Sender(service, items, prefix) for prefix in ("a", "b", "c")]
        threads = [threading.Thread(target=sender.run) for sender in senders]
        for thread in threads:
            thread.start()
        try:
            for _ in range(kills):
                time.sleep(choices.uniform(0.0, 1.0))
                service.kill()
                service.start()
            time.sleep(0.5)
        finally:
            for sender in senders:
                sender.stopping = True
            for thread in threads:
                thread.join()
        with service.client() as client:
            wait_for(lambda: client.get("/model").json()["lag"] == 0, "the learner to catch up")
            assert "quarantined" not in service.log()
        assert service.stop() == 0
        assert check_promises(service.data, senders) > 10 * kills
        assert verify_versions(service.data)


def test_nothing_is_lost_or_applied_twice_when_everything_is_killed(tmp_path: Path, digits: Items) -> None:
    kill_and_restart(tmp_path, DIGITS, digits, kills=3)


@pytest.mark.long
def test_nothing_is_lost_or_applied_twice_over_fifty_kills(tmp_path: Path, digits: Items) -> None:
    kill_and_restart(tmp_path, DIGITS, digits, kills=50)


def test_a_kill_while_starting_leaves_a_directory_that_starts(tmp_path: Path) -> None:
    service = RunningService(tmp_path, DIGITS)
    for moment in (0.1, 0.6, 1.2, 1.8, 2.2, 2.6):
        service.launch()
        time.sleep(moment)
        service.kill()
    with service, service.client() as client:
        assert client.get("/readyz").status_code == 200
