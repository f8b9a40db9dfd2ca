"""Processes that hang, die again and again, or are two where one may be."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.frozen import CONFIG
from tests.faults.history import Items
from tests.faults.plan import Action, Fault
from tests.faults.storm import Struck
from tests.running import DIGITS, RunningService, learn, wait_for

WATCHED = CONFIG + "[learner]\nwatchdog_seconds = 1\n"


@pytest.mark.parametrize(
    "point", ["fsync checkpoint.new", "fsync versions.db-wal", "write suspicion.json", "write features.db-wal"]
)
def test_a_learner_that_hangs_in_a_call_is_killed_and_learning_goes_on(tmp_path: Path, digits: Items, point: str) -> None:
    struck = Struck(tmp_path, WATCHED)
    with struck.service as service, service.client() as client:
        learn(client, list(digits[:5]))
        struck.plan.arm(Fault(action=Action.HANG, point=point))
        seq = learn(client, list(digits[5:10]))["log_seq"]
        assert struck.plan.fired() == 1
        assert client.get(f"/feedback/{seq}").json()["status"] == "applied"
        assert "serve.killed: the learner, no sign of life for" in service.log()
        assert client.post("/predict", json={"instances": [digits[0][0]]}).status_code == 200


def test_a_learner_that_runs_out_of_memory_is_started_again_and_no_item_is_blamed(tmp_path: Path, digits: Items) -> None:
    with RunningService(tmp_path, DIGITS) as service, service.client() as client:
        learn(client, list(digits[:5]))
        (learner,) = service.pids("learner")
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{learner}/status").read_text().splitlines())
        used = 1024 * int(fields["VmSize"].split()[0])
        resource.prlimit(learner, resource.RLIMIT_AS, (used - (200 << 20), used))  # nothing more can be had
        feedback = [{"instance": instance, "label": label} for instance, label in digits[:600]]
        assert client.post("/feedback", json={"feedback": feedback}).status_code == 202
        wait_for(lambda: client.get("/model").json()["lag"] == 0, "the learner to catch up")
        assert service.pids("learner") not in ([], [learner])
        assert "quarantined" not in service.log()


def test_an_idle_learner_is_not_taken_for_one_that_hangs(tmp_path: Path, digits: Items) -> None:
    with RunningService(tmp_path, WATCHED) as service, service.client() as client:
        learn(client, list(digits[:5]))
        (learner,) = service.pids("learner")
        time.sleep(4)
        assert service.pids("learner") == [learner]


def restart_storm(folder: Path, items: Items, seconds: float) -> None:
    """Kill every learner as soon as it is there; predictions go on, and learning does when that ends."""
    with RunningService(folder, DIGITS) as service, service.client() as client:
        learn(client, list(items[:20]))
        end, killed = time.monotonic() + seconds, set[int]()
        while time.monotonic() < end:
            for learner in service.pids("learner"):
                with suppress(ProcessLookupError):
                    os.kill(learner, signal.SIGKILL)
                    killed.add(learner)
            assert client.post("/predict", json={"instances": [items[0][0]]}).status_code == 200
            feedback = [{"instance": instance, "label": label} for instance, label in items[:2]]
            assert client.post("/feedback", json={"feedback": feedback}).status_code == 202
        assert 2 <= len(killed) <= 4 + seconds, f"{len(killed)} starts: the pauses between them grow"
        wait_for(lambda: client.get("/model").json()["lag"] == 0, "the learner to catch up")
        assert "quarantined" not in service.log()


def test_predictions_and_feedback_go_on_in_a_storm_of_restarts(tmp_path: Path, digits: Items) -> None:
    restart_storm(tmp_path, digits, 4)


@pytest.mark.long
def test_predictions_and_feedback_go_on_in_a_long_storm_of_restarts(tmp_path: Path, digits: Items) -> None:
    restart_storm(tmp_path, digits, 60)


def test_of_two_services_that_start_on_one_directory_one_serves(tmp_path: Path, digits: Items) -> None:
    (tmp_path / "other").mkdir()
    first = RunningService(tmp_path, DIGITS)
    second = RunningService(tmp_path / "other", DIGITS, "--data", str(first.data))
    processes = {first: first.launch(), second: second.launch()}
    try:
        wait_for(lambda: any(process.poll() is not None for process in processes.values()), "one to give up")
        (refused,) = [service for service, process in processes.items() if process.poll() is not None]
        assert processes[refused].wait() == 78
        assert "everlearn: another learner (process" in refused.log()
        serving = second if refused is first else first
        wait_for(serving.ready_url, "the other to serve")
        serving.url = serving.ready_url()
        with serving.client() as client:
            assert learn(client, list(digits[:5]))["log_seq"] == 5
    finally:
        first.kill()
        second.kill()
