from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from service.access.audit import AuditLog
from service.store import CorruptCheckpoint, DataDirectoryError, NewEntry, Part, StoreUnavailable, Version
from service.store.embedded import (
    DataDirectory,
    EmbeddedCheckpointStore,
    EmbeddedFeatureStore,
    EmbeddedFeedbackLog,
    EmbeddedPredictionJournal,
    back_up,
    restore,
)
from service.store.embedded.backup import MANIFEST
from service.store.embedded.formats import FORMAT
from service.store.embedded.parts import SMALL
from tests.contract.test_checkpoint_store import GATE, version
from tests.damaging import flip, remove
from tests.running import ROOT

KILLED = """
import os, pathlib, random, signal, sys, time
from service.store.embedded import back_up
data, folder, kills = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
choices = random.Random(5)
started = time.perf_counter()
back_up(data, folder / "whole")
took = time.perf_counter() - started
# Who is killed before its lock has its name leaves an empty one, which is removed a minute later.
left = lambda: sum(path.is_file() and path.name != ".lock" for half in folder.glob(".*") for path in half.rglob("*"))
halves = 0
for number in range(kills):
    if (child := os.fork()) == 0:
        back_up(data, folder / f"killed-{number}")
        os._exit(0)
    time.sleep(choices.uniform(0, 1.2 * took))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    halves += left() > 0  # the next one removes it
back_up(data, folder / "last")
print(halves, left())
"""


def filled(folder: Path, versions: int = 5, size: int = 1000, small: int = 0) -> DataDirectory:
    """Make a data directory with entries, and versions that took one each; parts of up to `small` bytes are in the database."""
    directory = DataDirectory(folder).create()
    with (
        closing(EmbeddedFeedbackLog(directory)) as log,
        closing(EmbeddedFeatureStore(directory)),
        closing(EmbeddedPredictionJournal(directory, max_age=60, max_bytes=10**8)),
        closing(EmbeddedCheckpointStore(directory, keep=100, small=small)) as checkpoints,
    ):
        for number in range(versions + 1):
            if number:
                log.append([NewEntry(instance=b"x" * size, label=str(number), digest=b"d", key=f"k{number}")]).result(10)
            files = checkpoints.put({part: b"%s %d" % (part.encode(), number) + b"x" * size for part in parts})
            row = version(number, files, number, number) if number else version(0, files)
            if number:
                checkpoints.commit([row], gate=GATE)
            else:
                checkpoints.initialise({"model": {}}, row)
    return directory


parts: tuple[Part, ...] = ("frozen", "model", "learner")


def rows(folder: Path) -> list[Version]:
    with closing(EmbeddedCheckpointStore(DataDirectory(folder).open(), keep=2)) as checkpoints:
        return checkpoints.page(None, 999)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # a copy of its own: the other names of the file keep what they have
    path.write_bytes(content)


def test_a_restored_directory_holds_what_was_backed_up(tmp_path: Path) -> None:
    source = filled(tmp_path / "data")
    AuditLog(source.audit).append({"act": "rollback"})
    made = back_up(source.root, tmp_path / "backup")
    assert (made.version, made.log_seq, made.damaged) == (5, 5, [])
    restore(tmp_path / "backup", tmp_path / "new")
    assert rows(tmp_path / "new") == rows(source.root)
    assert [record["act"] for record in AuditLog(DataDirectory(tmp_path / "new").audit).read()] == ["rollback"]
    with (
        closing(EmbeddedFeedbackLog(source)) as old,
        closing(EmbeddedFeedbackLog(DataDirectory(tmp_path / "new").open())) as new,
        closing(EmbeddedCheckpointStore(DataDirectory(tmp_path / "new").open(), keep=2)) as checkpoints,
    ):
        assert new.read(0, 99) == old.read(0, 99)
        assert checkpoints.read(rows(source.root)[0].parts["model"]).startswith(b"model 5")
        assert new.append([NewEntry(instance=b"x", label="6", digest=b"d")]).result(10) == [6]
    assert (tmp_path / "new").stat().st_mode & 0o777 == (tmp_path / "backup").stat().st_mode & 0o777 == 0o700


def test_small_parts_are_backed_up_with_the_versions(tmp_path: Path) -> None:
    source = filled(tmp_path / "data", small=SMALL)
    mended = rows(source.root)[1].parts["model"]
    flip(source, mended)
    source.checkpoint(mended).write_bytes(b"model 4" + b"x" * 1000)
    made = back_up(source.root, tmp_path / "backup")
    assert (made.version, made.copied + made.linked, made.damaged) == (5, 1, []), "the one that was mended by a file"
    restore(tmp_path / "backup", tmp_path / "new")
    assert rows(tmp_path / "new") == rows(source.root)
    with closing(EmbeddedCheckpointStore(DataDirectory(tmp_path / "new").open(), keep=2)) as checkpoints:
        assert all(checkpoints.read(sha256) for row in rows(source.root) for sha256 in row.parts.values())


def test_numbers_that_clients_may_have_seen_are_left_out_on_demand(tmp_path: Path) -> None:
    source = filled(tmp_path / "data")
    back_up(source.root, tmp_path / "backup")
    with pytest.raises(DataDirectoryError, match="must be over 5"):
        restore(tmp_path / "backup", tmp_path / "new", next_seq=5)
    restore(tmp_path / "backup", tmp_path / "new", next_seq=1000)
    with closing(EmbeddedFeedbackLog(DataDirectory(tmp_path / "new").open())) as log:
        assert log.append([NewEntry(instance=b"x", label="6", digest=b"d")]).result(10) == [1000]
        assert [entry.seq for entry in log.read(4, 99)] == [5, 1000]


def test_a_log_without_anything_learned_can_be_backed_up(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data").create()
    with closing(EmbeddedFeedbackLog(directory)) as log:
        log.append([NewEntry(instance=b"x", label="1", digest=b"d")]).result(10)
    made = back_up(directory.root, tmp_path / "backup")
    assert (made.version, made.log_seq) == (None, 1)
    restore(tmp_path / "backup", tmp_path / "new", next_seq=7)
    with closing(EmbeddedFeedbackLog(DataDirectory(tmp_path / "new").open())) as log:
        assert log.append([NewEntry(instance=b"x", label="2", digest=b"d")]).result(10) == [7]


@pytest.mark.parametrize("name", ["feedback.db", "versions.db", "features.db", "predictions.db", "checkpoints"])
def test_a_backup_of_which_a_file_is_damaged_or_lost_is_refused(tmp_path: Path, name: str) -> None:
    back_up(filled(tmp_path / "data").root, tmp_path / "backup")
    path = tmp_path / "backup" / name
    if path.is_dir():
        path = min(path.iterdir())
    damage(path)
    with pytest.raises(CorruptCheckpoint, match=f"{path.name} is damaged"):
        restore(tmp_path / "backup", tmp_path / "new")
    path.unlink()
    with pytest.raises(CorruptCheckpoint, match=f"{path.name} can't be read"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["backup", "data"]


@pytest.mark.parametrize("taken", ["file", "full", "link"])
def test_what_is_there_already_is_left_alone(tmp_path: Path, taken: str) -> None:
    source = filled(tmp_path / "data")
    back_up(source.root, tmp_path / "backup")
    target = tmp_path / "there"
    if taken == "file":
        target.write_text("precious")
    elif taken == "link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
        (target / "thesis.tex").write_text("precious")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for make in (lambda: back_up(source.root, target), lambda: restore(tmp_path / "backup", target)):
        with pytest.raises(DataDirectoryError, match="is there already, and not empty"):
            make()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_backup_inside_of_the_data_directory_is_refused(tmp_path: Path) -> None:
    source = filled(tmp_path / "data")
    (tmp_path / "link").symlink_to(source.root)
    for folder in (source.root, tmp_path / "link"):
        with pytest.raises(DataDirectoryError, match="is inside of the data directory"):
            back_up(source.root, folder / "backup")
    assert not (source.root / "backup").exists()


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    back_up(filled(tmp_path / "data").root, tmp_path / "backup")
    assert (tmp_path / "backup" / MANIFEST).exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "has format 99"),
        ({"files": {"../outside": "0"}}, "a file outside of it"),
        ({"files": {"/etc/outside": "0"}}, "a file outside of it"),
        ({"files": 3}, "can't be read"),
    ],
)
def test_a_backup_that_says_nonsense_is_refused(tmp_path: Path, change: Mapping[str, object], says: str) -> None:
    back_up(filled(tmp_path / "data").root, tmp_path / "backup")
    manifest = tmp_path / "backup" / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(DataDirectoryError, match=says):
        restore(tmp_path / "backup", tmp_path / "new")


@pytest.mark.parametrize("small", [0, SMALL], ids=["files", "database"])
def test_a_damaged_old_checkpoint_is_left_out_and_told(tmp_path: Path, small: int) -> None:
    source = filled(tmp_path / "data", small=small)
    flip(source, rows(source.root)[2].parts["model"])
    remove(source, rows(source.root)[3].parts["learner"])
    assert back_up(source.root, tmp_path / "backup").damaged == [3, 2]
    restore(tmp_path / "backup", tmp_path / "new")
    assert [row.version for row in rows(tmp_path / "new") if row.stored] == [5, 4, 1, 0]


@pytest.mark.parametrize("small", [0, SMALL], ids=["files", "database"])
@pytest.mark.parametrize("place", [0, 5])
def test_without_the_newest_or_the_first_checkpoint_there_is_no_backup(tmp_path: Path, place: int, small: int) -> None:
    source = filled(tmp_path / "data", small=small)
    sha256 = rows(source.root)[place].parts["model"]
    for harm in (flip, remove):
        harm(source, sha256)
        with pytest.raises(CorruptCheckpoint, match=rf"the checkpoint part {sha256} .*replay --to {5 - place} "):
            back_up(source.root, tmp_path / "backup")
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


def test_a_damaged_database_is_not_taken_for_a_backup(tmp_path: Path) -> None:
    source = filled(tmp_path / "data")
    source.features.write_bytes(b"SQLite format 3\0" + b"x" * 8000)
    with pytest.raises(DataDirectoryError, match=r"features\.db is damaged"):
        back_up(source.root, tmp_path / "backup")
    source.features.unlink()
    with pytest.raises(DataDirectoryError, match=r"features\.db is not there"):
        back_up(source.root, tmp_path / "backup")


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount file systems of so many MB."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("skipped: needs the right to mount a small file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def test_what_an_earlier_backup_on_the_same_disk_has_is_not_copied_again(
    tmp_path: Path, other_disk: Callable[[int], Path]
) -> None:
    disk = other_disk(20)
    source = filled(tmp_path / "data")
    first = back_up(source.root, disk / "first")
    assert (first.copied, first.linked) == (18, 0)
    one, other = (
        disk / "first" / source.checkpoint(row.parts["model"]).relative_to(source.root) for row in rows(source.root)[:2]
    )
    damage(one)
    second = back_up(source.root, disk / "second", base=disk / "first")
    assert (second.copied, second.linked) == (1, 17), "the damaged one is copied from the data directory"
    assert (disk / "second" / "checkpoints" / other.name).stat().st_ino == other.stat().st_ino
    restore(disk / "second", tmp_path / "new")
    assert rows(tmp_path / "new") == rows(source.root)
    with pytest.raises(DataDirectoryError, match="is not a backup"):
        back_up(source.root, disk / "third", base=source.root)


def test_a_mounted_folder_is_filled_too(tmp_path: Path, other_disk: Callable[[int], Path]) -> None:
    back_up(filled(tmp_path / "data").root, tmp_path / "backup")
    volume = other_disk(20)
    restore(tmp_path / "backup", volume)
    assert rows(volume) == rows(tmp_path / "data")
    assert not list(volume.glob(".*"))


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, other_disk: Callable[[int], Path]) -> None:
    source = filled(tmp_path / "data", versions=8, size=200_000)
    back_up(source.root, tmp_path / "backup")
    for megabytes in (1, 3):  # the log does not fit, the checkpoints do not fit
        disk = other_disk(megabytes)
        for make in (
            lambda disk=disk: back_up(source.root, disk / "a"),
            lambda disk=disk: restore(tmp_path / "backup", disk / "a"),
        ):
            with pytest.raises(StoreUnavailable, match=f"^{disk}/a can't be written: No space left on device$"):
                make()
            assert not list(disk.iterdir())


def test_a_backup_that_is_killed_leaves_nothing_half_made(tmp_path: Path) -> None:
    source = filled(tmp_path / "data", versions=30)
    folder = tmp_path / "backups"
    folder.mkdir()
    command = [sys.executable, "-c", KILLED, str(source.root), str(folder), "25"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    left, after = map(int, done.stdout.split())
    assert left >= 1, "no kill came in the middle"
    assert after == 0, "what the killed left behind is removed by the next"
    made = [path for path in folder.iterdir() if path.name.startswith("killed")]
    assert len(made) < 25
    for path in [*made, folder / "last"]:
        restore(path, tmp_path / f"of-{path.name}")
        assert rows(tmp_path / f"of-{path.name}") == rows(source.root)


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    source = filled(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file/backup can't be written: "):
        back_up(source.root, tmp_path / "file" / "backup")
    assert sorted(os.listdir(tmp_path)) == ["data", "file"]


def test_a_backup_while_feedback_is_forgotten_has_no_version_that_learned_from_what_its_log_lacks(tmp_path: Path) -> None:
    source = filled(tmp_path / "data", versions=60, size=50_000)
    stopping, choices = threading.Event(), random.Random(3)

    def learn_and_forget() -> None:
        with (
            closing(EmbeddedFeedbackLog(source)) as log,
            closing(EmbeddedCheckpointStore(source, keep=100)) as checkpoints,
        ):
            number = 60
            while not stopping.wait(choices.uniform(0, 0.3)):
                (seq,) = log.append([NewEntry(instance=b"x", label="1", digest=b"d")]).result(10)
                files: dict[Part, str] = checkpoints.put({part: b"%s %d" % (part.encode(), seq) for part in parts})
                checkpoints.commit([version(number + 1, files, seq, seq)], gate=GATE)
                stopping.wait(choices.uniform(0, 0.3))
                without = replace(version(number + 2, files, seq, seq - 1), parent=number, act=seq)
                checkpoints.commit([without], gate=GATE, forgotten=[seq])
                log.erase([seq])
                number += 2

    learner = threading.Thread(target=learn_and_forget)
    learner.start()
    try:
        for number in range(15):
            back_up(source.root, tmp_path / f"backup-{number}")
    finally:
        stopping.set()
        learner.join()
    for number in range(15):
        restore(tmp_path / f"backup-{number}", tmp_path / f"new-{number}")
        with closing(EmbeddedFeedbackLog(DataDirectory(tmp_path / f"new-{number}").open())) as log:
            forgotten = {entry.seq for entry in log.read(0, 10**6) if entry.kind == "forgotten"}
        served = [row for row in rows(tmp_path / f"new-{number}") if row.superseded is None]
        assert not forgotten & {seq for row in served for new, _ in row.steps for seq in new}


def test_a_backup_of_an_earlier_format_is_brought_to_todays(tmp_path: Path) -> None:
    back_up(filled(tmp_path / "data").root, tmp_path / "backup")
    manifest = tmp_path / "backup" / MANIFEST
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 4'))
    restore(tmp_path / "backup", tmp_path / "new")
    assert len(rows(tmp_path / "new")) == 6
