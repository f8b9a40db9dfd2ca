"""A disk that is full or damaged: clear answers, nothing half-accepted, and on again once there is room."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.store import Part
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from service.verify import verify_versions
from tests.damaging import flip
from tests.faults.frozen import CONFIG
from tests.faults.plan import Action, Fault
from tests.faults.storm import SEED, AtPoint, Struck, failures, rounds, storm, survey
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


def test_calls_that_fail_are_told_and_nothing_is_lost(tmp_path: Path, digits: Digits) -> None:
    strikes = failures(survey(tmp_path / "survey", CONFIG, digits), random.Random(SEED))
    met, found = storm(tmp_path / "storm", CONFIG, digits, strikes[:12])
    assert met.total() > 6
    assert found.quarantined == 0, "what the disk did is not an item's fault"


@pytest.mark.long
def test_each_call_fails_in_each_way_and_nothing_is_lost(tmp_path: Path, digits: Digits) -> None:
    print(f"FAULT_SEED={SEED}")
    choices = random.Random(SEED)
    passed = survey(tmp_path / "survey", CONFIG, digits)
    strikes = [*failures(passed, choices), *failures(passed, choices)]
    met: Counter[str] = Counter()
    for number, part in enumerate(rounds(strikes, 40)):
        more, found = storm(tmp_path / f"round{number}", CONFIG, digits, part)
        met += more
        print(f"after round {number}: {met.total()} errors, {dict(met)}", flush=True)
        assert found.quarantined == 0, "what the disk did is not an item's fault"
    assert met.total() >= 200


def test_a_checkpoint_whose_folder_failed_to_sync_is_synced_before_it_is_served(tmp_path: Path, digits: Digits) -> None:
    struck = Struck(tmp_path, CONFIG)
    with struck.service as service, service.client() as client:
        learn(client, digits[:20])  # of all classes: then a part is a file
        before = struck.plan.counts()["fsync checkpoints"]
        struck.plan.arm(Fault(action=Action.FAIL, point="fsync checkpoints", error=errno.EIO))
        learn(client, digits[20:21])
        assert struck.plan.fired() == 1
        # The first failed; then once more, though the file was there already.
        assert struck.plan.counts()["fsync checkpoints"] - before == 2


@pytest.mark.parametrize("name", ["feedback.db", "versions.db", "features.db"])
@pytest.mark.parametrize("suffix", ["", "-shm", "-wal"])
def test_a_database_that_could_not_be_opened_for_writing_once_is_opened_anew(
    tmp_path: Path, digits: Digits, name: str, suffix: str
) -> None:
    struck = Struck(tmp_path, CONFIG)
    with struck.service as service:
        struck.strike(AtPoint(Fault(action=Action.FAIL, point=f"open {name}{suffix}", error=errno.EIO), "restart"))
        with service.client() as client:
            learn(client, digits[:5])


@pytest.mark.parametrize("part", ["frozen", "model", "learner"])
def test_a_damaged_newest_checkpoint_is_worked_out_anew_from_the_log(tmp_path: Path, digits: Digits, part: Part) -> None:
    with RunningService(tmp_path, CONFIG) as service:
        with service.client() as client:
            learn(client, digits[:20])
            before = client.get("/model").json()
        service.stop()
        checkpoints = EmbeddedCheckpointStore(DataDirectory(service.data).open(), keep=100)
        latest = checkpoints.latest()
        assert latest is not None
        whole = checkpoints.read(latest.parts[part])
        flip(DataDirectory(service.data), latest.parts[part])
        service.start()
        with service.client() as client:
            assert client.get("/model").json()["model_version"] == before["model_version"]
        assert re.search(rf"learner.mended: from the log: .* version={latest.version}$", service.log(), re.M)
        assert checkpoints.read(latest.parts[part]) == whole
        checkpoints.close()
        assert service.stop() == 0
