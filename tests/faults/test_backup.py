"""Backups taken while clients send and the learner is flat out: each holds all that was acknowledged before it began."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.checkpointing import check_log
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog
from service.verify import verify_versions
from tests.faults.history import acknowledged_keys, clients
from tests.running import DIGITS, RunningService, everlearn, learn

Items = list[tuple[Any, Any]]
SMALL = DIGITS + 'experts = ["linear"]\n[learning]\nupdate_items = 4\n[store]\ncheckpoints = 2\n'


def check_backup(backup: Path, acknowledged: dict[str, int]) -> int:
    """Restore a backup, check it against what clients had been told before it began, and return its newest version."""
    data = backup.with_name(f"{backup.name}-restored")
    restored = everlearn("restore", str(backup), "--data", str(data))
    assert restored.returncode == 0, restored.stderr
    directory = DataDirectory(data).open()
    with (
        closing(EmbeddedFeedbackLog(directory)) as feedback,
        closing(EmbeddedCheckpointStore(directory, keep=2)) as checkpoints,
    ):
        by_key = {entry.key: entry.seq for entry in feedback.read(0, 10**9)}
        assert {key: by_key.get(key) for key in acknowledged} == acknowledged, "acknowledged before the backup, and not in it"
        check_log(feedback, checkpoints)
        newest = checkpoints.latest()
        assert newest is not None
        for row in checkpoints.page(None, 10**9):
            if row.stored:
                assert all(checkpoints.read(sha256) for sha256 in row.parts.values())
    assert verify_versions(data)
    shutil.rmtree(data)
    return newest.version


def back_up_under_load(folder: Path, items: Items, backups: int) -> None:
    versions = []
    with RunningService(folder, SMALL, "--workers", "2") as service, clients(service, items) as working:
        for number in range(backups):
            time.sleep(0.5)
            told = acknowledged_keys([event for client in working for event in list(client.events)])
            done = everlearn("backup", str(folder / f"backup-{number}"), "--data", str(service.data))
            assert done.returncode == 0, done.stderr
            versions.append(told)
    newest = [check_backup(folder / f"backup-{number}", told) for number, told in enumerate(versions)]
    assert newest == sorted(set(newest)), "nothing was learned between two backups"


def test_a_backup_under_load_holds_all_that_was_acknowledged_before_it(tmp_path: Path, digits: Items) -> None:
    back_up_under_load(tmp_path, digits, backups=2)


@pytest.mark.long
def test_twenty_backups_under_load_hold_all_that_was_acknowledged_before_them(tmp_path: Path, digits: Items) -> None:
    back_up_under_load(tmp_path, digits, backups=20)


def test_a_restored_service_goes_on_as_the_backed_up_one_does(tmp_path: Path, digits: Items) -> None:
    """The same answers to the bit, and the same versions of the same feedback."""
    original, copied = RunningService(tmp_path, DIGITS), RunningService(copy_folder(tmp_path), DIGITS)
    with original, original.client() as client:
        for item in digits[:20]:
            learn(client, [item])
        assert everlearn("backup", str(tmp_path / "backup"), "--data", str(original.data)).returncode == 0
        assert everlearn("restore", str(tmp_path / "backup"), "--data", str(copied.data)).returncode == 0
        with copied:
            assert heard(copied, digits) == heard(original, digits)


def copy_folder(folder: Path) -> Path:
    copy = folder / "copy"
    copy.mkdir()
    return copy


def heard(service: RunningService, digits: Items) -> tuple[Any, Any]:
    """Return the answers to some instances, and what ten labels then make of the model."""
    with service.client() as client:
        said = client.post("/predict", json={"instances": [instance for instance, _ in digits[50:99]]}).json()
        for item in digits[100:110]:
            number = learn(client, [item])["model_version"]
        row = client.get(f"/versions/{number}").json()
    return [(answer["label"], answer["scores"]) for answer in said["predictions"]], (number, row["last_seq"], row["sha256"])
