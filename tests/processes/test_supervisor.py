from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.processes.slow import STEP_SECONDS
from tests.running import DIGITS, ROOT, RunningService, learn, replicas, wait_for

Digits = list[tuple[list[float], str]]

# Where the processes themselves are looked at, they are started as a user would, and not forked.
ColdService = partial(RunningService, warm=False)


def test_sigterm_finishes_what_is_in_flight_and_leaves_a_committed_version(tmp_path: Path, digits: Digits) -> None:
    answers: list[int] = []
    with ColdService(tmp_path, DIGITS, "--workers", "2") as service:

        def send() -> None:
            with service.client() as client:
                for instance, label in digits:
                    try:
                        answer = client.post("/feedback", json={"feedback": [{"instance": instance, "label": label}]})
                    except httpx.TransportError:  # not taken, or an idle connection was closed just as we wrote to it
                        return
                    answers.append(answer.status_code)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 15
        for thread in threads:
            thread.join()
        assert set(answers) == {202}
        service.start()
        with service.client() as client:
            wait_for(lambda: client.get("/model").json()["lag"] == 0, "the rest to be learned")
            assert client.get("/model").json()["log_seq"] >= len(answers)


def test_while_it_drains_new_connections_are_refused_and_what_is_cut_off_is_told(tmp_path: Path) -> None:
    with ColdService(tmp_path, DIGITS + "[server]\ngrace_seconds = 6\n") as service:
        address = urlsplit(service.url)
        with socket.create_connection((address.hostname, address.port), timeout=20) as upload:
            upload.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            stopping = threading.Thread(target=service.stop)
            time.sleep(0.5)
            stopping.start()
            time.sleep(1)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address.hostname, address.port), timeout=2)
            answer = b"".join(iter(partial(upload.recv, 65536), b"")).decode()  # head and body may come apart
        stopping.join()
    assert answer.startswith("HTTP/1.1 503 ")
    assert "urn:everlearn:problem:not-ready" in answer
    assert "x-request-id" in answer


def test_waiting_feedback_is_answered_when_the_service_stops(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        (learner,) = service.pids("learner")
        os.kill(learner, signal.SIGSTOP)
        answers: list[httpx.Response] = []

        def send() -> None:
            body = {"feedback": [{"instance": digits[0][0], "label": "1"}]}
            with service.client() as client:
                answers.append(client.post("/feedback", json=body, headers={"Prefer": "wait=30"}))

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(0.5)
        threading.Timer(1.5, os.kill, (learner, signal.SIGCONT)).start()
        service.stop()
        thread.join()
    assert [answer.status_code for answer in answers] == [202]


def test_predictions_go_on_while_the_learner_is_dead_and_learning_goes_on_after(tmp_path: Path, digits: Digits) -> None:
    with ColdService(tmp_path, DIGITS) as service, service.client() as client:
        learn(client, digits[:20])
        (learner,) = service.pids("learner")
        os.kill(learner, signal.SIGKILL)
        assert client.post("/predict", json={"instances": [digits[0][0]]}).status_code == 200
        assert client.get("/readyz").status_code == 200
        seq = learn(client, digits[20:40])["log_seq"]
        assert seq == 40
        assert client.get("/model").json()["metrics"]["items"] == 40
        assert service.pids("learner") not in ([], [learner])
        assert "serve.child_died: the learner died (killed by SIGKILL)" in service.log()


def test_a_worker_that_dies_is_started_again(tmp_path: Path, digits: Digits) -> None:
    with ColdService(tmp_path, DIGITS) as service:
        (worker,) = service.pids("worker")
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: service.pids("worker") not in ([], [worker]), "another worker")
        with service.client() as client:
            assert learn(client, digits[:2])["log_seq"] == 2


def test_several_workers_share_one_store_and_one_learner(tmp_path: Path, digits: Digits) -> None:
    with ColdService(tmp_path, DIGITS, "--workers", "3") as service:
        assert len(service.pids("worker")) == 3
        assert len(service.pids("learner")) == 1
        with service.client() as client:
            learn(client, digits[:20])
        for instance, label in digits[20:60]:  # each on a connection of its own: mostly another worker
            with service.client() as client:
                answer = client.post("/predict", json={"instances": [instance]})
                if answer.status_code == 409:  # this worker has not taken the version yet
                    continue
            with service.client() as client:
                item = {"prediction_id": answer.json()["predictions"][0]["id"], "label": label}
                assert client.post("/feedback", json={"feedback": [item]}).status_code == 202


def test_nobody_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with ColdService(tmp_path, DIGITS) as service:
        process = service._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not service.pids("learner") and not service.pids("worker"), "the children to end")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (DIGITS.replace("64", "8"), "model.input.length was 64 and is now 8"),
        (DIGITS + "[learning]\nseed = 1\n", "learning.seed was 0 and is now 1"),
    ],
)
def test_a_directory_made_with_another_model_is_refused_by_what_differs(tmp_path: Path, config: str, says: str) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        service.stop()
        service.config.write_text(config)
        process = service.launch()
        assert process.wait(60) == 78
        assert [line for line in service.log().splitlines() if line.startswith("everlearn: ") and says in line]


def test_a_second_service_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with ColdService(tmp_path, DIGITS) as service:
        second = ColdService(tmp_path / "other", DIGITS, "--data", str(service.data))
        process = second.launch()
        assert process.wait(60) == 78
        assert "everlearn: another learner (process" in second.log()
        assert "everlearn: ready" not in second.log()
        with service.client() as client:
            assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_replica_serves_what_another_learns_and_learns_when_that_ends(tmp_path: Path, digits: Digits, end: str) -> None:
    with replicas(tmp_path, DIGITS) as (first, second):
        leads, stands_by = (second, first) if "learner.standing_by" in first.log() else (first, second)
        with leads.client() as one, stands_by.client() as other:
            assert learn(other, digits[:10])["log_seq"] == 10
            wait_for(lambda: one.get("/model").json()["log_seq"] == 10, "the other replica to take the version too")
            prediction = one.post("/predict", json={"instances": [digits[10][0]]}).json()["predictions"][0]["id"]
            feedback = {"feedback": [{"prediction_id": prediction, "label": digits[10][1]}]}
            answer = other.post("/feedback", json=feedback, headers={"Prefer": "wait=30"})
            assert answer.status_code == 200, answer.text
            assert stands_by.log().count("learner.standing_by") == 1
            getattr(leads, end)()
            assert learn(other, digits[11:20])["log_seq"] == 20
            assert other.get("/model").json()["metrics"]["items"] == 20


def test_a_replica_that_takes_over_may_take_longer_to_load_than_a_learner_may_be_silent(tmp_path: Path, digits: Digits) -> None:
    slow = '[model]\nclass = "tests.processes.slow:Slow"\n[learner]\nwatchdog_seconds = 1\n'
    with replicas(tmp_path, slow) as (first, second):
        leads, stands_by = (second, first) if "learner.standing_by" in first.log() else (first, second)
        leads.kill()
        with stands_by.client() as client:
            assert learn(client, digits[:10])["log_seq"] == 10
        assert "serve.killed" not in stands_by.log()


def test_an_update_may_take_longer_than_a_learner_may_be_silent(tmp_path: Path, digits: Digits) -> None:
    slow = '[model]\nclass = "tests.processes.slow:SlowToLearn"\n[learner]\nwatchdog_seconds = 2\n'
    with RunningService(tmp_path, slow) as service, service.client() as client:
        began = time.monotonic()
        assert learn(client, digits[:8])["model_version"] == 1
        assert time.monotonic() - began > 8 * STEP_SECONDS
        assert "serve.killed" not in service.log()


@pytest.mark.parametrize("name", ["feedback.db", "predictions.db", "versions.db"])
def test_a_damaged_database_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        service.stop()
        (service.data / name).write_bytes(os.urandom(20_000))
        assert service.launch().wait(60) == 78
        assert service.log().splitlines()[-1].startswith(f"everlearn: {service.data / name} is damaged")
        assert "Traceback" not in service.log()


def test_a_log_that_ends_before_its_versions_is_refused(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        with service.client() as client:
            learn(client, digits[:3])
        service.stop()
        (service.data / "feedback.db").unlink()
        assert service.launch().wait(60) == 78
        last = service.log().splitlines()[-1]
        assert last.startswith("everlearn: the feedback log ends at seq 0, and version 1 contains seq 3")


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with RunningService(tmp_path, DIGITS) as service:
        port = service.url.rpartition(":")[2]
        second = RunningService(tmp_path / "other", DIGITS, "--port", port)
        process = second.launch()
        assert process.wait(60) == 78
        assert second.log().strip() == f"everlearn: can't listen on 127.0.0.1 port {port}: Address already in use"
        assert not second.data.exists()


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_ctrl_c_while_the_children_import_torch_ends_it_without_a_word(tmp_path: Path, seconds: float) -> None:
    (tmp_path / "everlearn.toml").write_text(DIGITS)
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("everlearn: listening on ")
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_the_supervisor_imports_no_torch() -> None:
    code = "import sys, service.cli, service.processes.supervisor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
