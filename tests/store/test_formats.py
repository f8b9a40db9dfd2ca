"""A store of the first released format opens in the code of today: `format4` was written by everlearn 0.1.0 at that time."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from service.store import DataDirectoryError, LearnerRunning, NewEntry
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog
from service.store.embedded.backup import back_up
from service.store.embedded.formats import FORMAT
from service.verify import consumed, rebuild_version
from tests.running import RunningService, learn

FIRST = Path(__file__).parent / "format4"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a copy of a directory of format 4, where a service finds it: 13 labels, one of them a correction, a class."""
    shutil.copytree(FIRST, tmp_path / "data")
    (tmp_path / "data" / "everlearn.toml").unlink()
    return tmp_path / "data"


def test_a_store_of_the_first_format_is_served_learned_from_and_replayed(old: Path, tmp_path: Path) -> None:
    with RunningService(tmp_path, (FIRST / "everlearn.toml").read_text()) as service, service.client() as client:
        model = client.get("/model").json()
        assert (model["model_version"], model["applied_seq"], model["lag"]) == (11, 14, 0)
        assert model["labels"] == ["a", "b", "c"]
        statuses = [client.get(f"/feedback/{seq}").json() for seq in range(1, 15)]
        assert {status["status"] for status in statuses} == {"applied"}
        assert [status["model_version"] for status in statuses[:5]] == [1, 1, 1, 1, 2]
        retried = {"instance": [0.0, 1.0, 1.0, 0.5], "label": "a", "key": "order-0"}
        assert client.post("/feedback", json={"feedback": [retried]}).json()["accepted"] == [{"seq": 6}]
        assert learn(client, [([0.0, 1.0, 1.0, 0.5], "a")])["log_seq"] == 15
        assert client.post("/rollback", json={"to": 1}, headers={"Prefer": "wait=30"}).json()["model_version"] == 13
        assert service.stop() == 0
    directory = DataDirectory(old).open()
    with closing(EmbeddedCheckpointStore(directory, keep=2)) as checkpoints:
        assert consumed(checkpoints).keys() == {1, 2, 3, 4}
    assert rebuild_version(old, 12, None)  # those before were made on another machine, maybe


def test_an_upgrade_that_was_cut_off_is_done_once_more(old: Path) -> None:
    DataDirectory(old).create()
    (old / "everlearn.json").write_text('{"format": 4}')
    directory = DataDirectory(old).create()
    with closing(EmbeddedFeedbackLog(directory)) as log, closing(EmbeddedCheckpointStore(directory, keep=2)) as checkpoints:
        assert log.end() == 14
        declared = checkpoints.get(2)
        assert declared is not None
        assert (declared.steps, declared.applied_seq, declared.updates) == ([[[5], []]], 5, 2)


def test_a_store_that_was_upgraded_and_not_served_yet_can_be_backed_up(old: Path, tmp_path: Path) -> None:
    """As after a restore of a backup of an earlier format."""
    DataDirectory(old).create()
    assert back_up(old, tmp_path / "backup").version == 11


def test_reading_a_store_of_an_earlier_format_says_what_brings_it_up(old: Path) -> None:
    with pytest.raises(DataDirectoryError, match=f"has format 4: `everlearn serve` brings it to format {FORMAT} first"):
        DataDirectory(old).open()


def test_a_store_that_an_earlier_service_works_on_is_left_alone(old: Path) -> None:
    with open(old / "learner.lock", "w") as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        with pytest.raises(LearnerRunning, match="a service of an earlier everlearn works on"):
            DataDirectory(old).create()
    assert (old / "everlearn.json").read_text() == '{"format": 4}'


@pytest.mark.parametrize(
    "gone", [("versions.db",), ("versions.db", "features.db", "predictions.db"), ("features.db", "predictions.db")]
)
def test_what_is_not_there_yet_is_not_made_by_the_upgrade(old: Path, gone: tuple[str, ...]) -> None:
    """As in a fork that was never served, or where the first start was cut off."""
    for name in gone:
        (old / name).unlink()
    directory = DataDirectory(old).create()
    assert not any((old / name).exists() for name in gone)
    with closing(EmbeddedFeedbackLog(directory)) as log:
        mine = NewEntry(instance=b"[0.0, 0.0, 0.0, 0.0]", label='"a"', digest=b"d", key="order-0", source="shop")
        assert log.append([mine]).result(10) == [15]
