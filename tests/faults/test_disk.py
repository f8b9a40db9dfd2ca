"""A disk that is full or damaged: clear answers, nothing half-accepted, and on again once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from service.verify import verify_versions
from tests.running import DIGITS, RunningService, learn, wait_for

Digits = list[tuple[list[float], str]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("skipped: needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(os.urandom(65536))


def test_a_full_disk_is_503_and_loses_nothing_and_learning_goes_on_once_there_is_room(small_disk: Path, digits: Digits) -> None:
    with RunningService(small_disk, DIGITS) as service, service.client() as client:
        learn(client, digits[:50])
        filler = small_disk / "filler"
        fill(filler)
        answers = []
        for start in range(0, 1700, 50):
            feedback = [{"instance": instance, "label": label} for instance, label in digits[start : start + 50]]
            answers.append(client.post("/feedback", json={"feedback": feedback}))
        refused = [answer for answer in answers if answer.status_code != 202]
        assert refused
        assert {answer.status_code for answer in refused} == {503}
        assert refused[-1].json()["type"].endswith("store-unavailable")
        assert refused[-1].headers["retry-after"]
        assert client.post("/predict", json={"instances": [digits[0][0]]}).status_code == 200
        wait_for(lambda: client.get("/readyz").status_code == 503, "readiness to tell")
        filler.unlink()
        wait_for(lambda: client.get("/readyz").status_code == 200, "readiness to come back")
        seqs = [item["seq"] for answer in answers if answer.status_code == 202 for item in answer.json()["accepted"]]
        last = learn(client, digits[:1])["log_seq"]
        assert last >= 51 + len(seqs)
        assert all(client.get(f"/feedback/{seq}").json()["status"] == "applied" for seq in [*seqs, last])
        model = client.get("/model").json()
        assert model["log_seq"] - 51 == len(seqs), "a refused request left something in the log"
        assert service.stop() == 0
    assert verify_versions(service.data)


def test_a_damaged_newest_checkpoint_is_told_and_never_served(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        with service.client() as client:
            learn(client, digits[:20])
        service.stop()
        checkpoints = EmbeddedCheckpointStore(DataDirectory(service.data).open(), keep=100)
        latest = checkpoints.latest()
        assert latest is not None
        path = checkpoints.path(latest.parts["model"])
        checkpoints.close()
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        process = service.launch()
        assert process.wait(60) == 78
        assert f"everlearn: the checkpoint file {path.name} holds content" in service.log()
