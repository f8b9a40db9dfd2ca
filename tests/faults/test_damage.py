"""Bits that flip and files that go: refused in one line that says the way out, or harmless; never wrong in silence."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Literal

import httpx
import pytest

from service.processes import EXIT_CONFIG
from service.store import Entry, StoreError
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog
from service.verify import verify_versions
from tests import damaging
from tests.faults.frozen import CONFIG
from tests.faults.storm import SEED
from tests.running import RunningService, learn, wait_for

Digits = list[tuple[list[float], str]]
Outcome = Literal["refused", "told", "harmless", "lost at the end", "WRONG"]

STOPPED = ["feedback.db", "versions.db", "predictions.db", "features.db", "everlearn.json", "suspicion.json"]
KILLED = ["feedback.db-wal", "versions.db-wal", "predictions.db-wal", "features.db-wal"]
CHECKPOINTS = ["frozen", "model", "learner"]
ITEMS = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """Make a directory that was stopped and one that was killed."""
    folder = tmp_path_factory.mktemp("whole")
    with RunningService(folder, CONFIG) as service:
        with service.client() as client:
            for number in range(0, ITEMS, 5):
                learn(client, digits[number : number + 5])
                client.post("/predict", json={"instances": [digits[0][0]]})
        shutil.copytree(service.data, folder / "killed", ignore=shutil.ignore_patterns("bells"))
        assert service.stop() == 0
    service.data.rename(folder / "stopped")
    (folder / "killed" / "bells").mkdir()
    return folder


def entries_of(data: Path) -> list[Entry]:
    feedback = EmbeddedFeedbackLog(DataDirectory(data).open())
    try:
        return [entry._replace(received_at=0.0) for entry in feedback.read(0, 10**6)]
    finally:
        feedback.close()


def newest_part(data: Path, part: str) -> str:
    checkpoints = EmbeddedCheckpointStore(DataDirectory(data).open(), keep=2)
    try:
        latest = checkpoints.latest()
        assert latest is not None
        return latest.parts[part]  # type: ignore[index]
    finally:
        checkpoints.close()


def flip(path: Path, choices: random.Random) -> None:
    content = bytearray(path.read_bytes())
    bit = choices.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    print(f"flipped bit {bit % 8} of byte {bit // 8} of {len(content)} in {path.name}")


def outcome_of(folder: Path, digits: Digits, before: list[Entry]) -> Outcome:
    """Start a service on a damaged directory, use it, and see what it makes of that."""
    service = RunningService(folder, CONFIG)
    process = service.launch()
    try:
        wait_for(lambda: process.poll() is not None or service.ready_url(), "an end or a start")
        if process.poll() is None:
            service.url = service.ready_url()
            with service.client() as client, suppress(httpx.HTTPError):  # where damage is met later, the service ends
                client.post("/predict", json={"instances": [digits[0][0]]})
                feedback = [{"instance": instance, "label": label} for instance, label in digits[ITEMS : ITEMS + 8]]
                for _ in range(5):
                    client.post("/feedback", json={"feedback": feedback}, headers={"Prefer": "wait=2"})
            process.terminate()
        status = process.wait(30)
        last = service.log().splitlines()[-1]
    finally:
        service.kill()
    if status == EXIT_CONFIG:
        print(f"  {last}")
        return "refused" if last.startswith("everlearn: ") else "WRONG"
    try:
        after = entries_of(service.data)
        verified = verify_versions(service.data)
    except StoreError as exc:
        print(f"  {exc}")
        return "told"
    if status != 0 or not verified:
        return "WRONG"
    if after[: len(before)] == before:
        return "harmless"
    kept = [entry for entry in after if entry.seq <= ITEMS and entry in before]
    return "lost at the end" if kept == before[: len(kept)] else "WRONG"


def damage(whole: Path, folder: Path, digits: Digits, name: str, choices: random.Random) -> Outcome:
    state = "killed" if name in KILLED else "stopped"
    shutil.copytree(whole / state, folder / "data")
    before = entries_of(whole / "stopped")
    if name in CHECKPOINTS:
        sha256 = newest_part(folder / "data", name)
        damaging.flip(DataDirectory(folder / "data"), sha256, choices.randrange(10**6))
    else:
        flip(folder / "data" / name, choices)
    return outcome_of(folder, digits, before)


def attack(whole: Path, folder: Path, digits: Digits, name: str, times: int) -> Counter[Outcome]:
    found: Counter[Outcome] = Counter()
    for number in range(times):
        here = folder / str(number)
        here.mkdir()
        outcome = damage(whole, here, digits, name, random.Random(f"{SEED} {name} {number}"))
        print(f"  {outcome}")
        found[outcome] += 1
        shutil.rmtree(here)
    print(f"{name}: {dict(found)}")
    assert not found["WRONG"]
    # SQLite ends a write-ahead log at the first frame that is damaged, as if a crash had cut it off there.
    assert name in KILLED or not found["lost at the end"]
    return found


@pytest.mark.parametrize("name", [*STOPPED, *KILLED, *CHECKPOINTS])
def test_a_flipped_bit_is_told_or_harmless(whole: Path, tmp_path: Path, digits: Digits, name: str) -> None:
    attack(whole, tmp_path, digits, name, 1)


@pytest.mark.long
@pytest.mark.parametrize("name", [*STOPPED, *KILLED, *CHECKPOINTS])
def test_many_flipped_bits_are_told_or_harmless(whole: Path, tmp_path: Path, digits: Digits, name: str) -> None:
    attack(whole, tmp_path, digits, name, 25)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("feedback.db", "refused"),
        ("versions.db", "refused"),
        ("features.db", "harmless"),
        ("predictions.db", "harmless"),
        ("everlearn.json", "refused"),
        ("suspicion.json", "harmless"),
        ("frozen", "harmless"),
        ("model", "harmless"),
        ("learner", "harmless"),
    ],
)
def test_a_file_that_is_gone_is_told_or_harmless(whole: Path, tmp_path: Path, digits: Digits, name: str, expected: str) -> None:
    shutil.copytree(whole / "stopped", tmp_path / "data")
    if name in CHECKPOINTS:
        damaging.remove(DataDirectory(tmp_path / "data"), newest_part(tmp_path / "data", name))
    else:
        (tmp_path / "data" / name).unlink()
    assert outcome_of(tmp_path, digits, entries_of(whole / "stopped")) == expected
