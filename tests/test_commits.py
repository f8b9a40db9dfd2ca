"""Commits while the disk is slow, or fails: on the real store, held back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Timer
from typing import Any, NoReturn

import pytest

from service.checkpointing import files_of
from service.commits import MILESTONE
from service.learner import Learner
from service.learning.gate import UpdateHarms
from service.learning.limits import UpdateRefused
from service.replay import replay
from service.store import ActKind, StoreUnavailable, Version
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from service.verify import verify_versions
from tests.test_acts import act, latest
from tests.workshop import Workshop


class SlowDisk(EmbeddedCheckpointStore):
    """Commits once it is let, and fails as often as it is told to."""

    def __init__(self, directory: DataDirectory) -> None:
        super().__init__(directory, keep=100)
        self.held, self.free = Event(), Event()
        self.failures = 0

    def commit(self, versions: Sequence[Version], **rest: Any) -> None:
        self.held.set()
        assert self.free.wait(10)
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the disk fails")
        super().commit(versions, **rest)


class SlowWorkshop(Workshop):
    """A workshop with 24 items and a slow disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.checkpoints.close()
        self.disk = SlowDisk(self.directory)
        self.checkpoints = self.disk
        self.send(24)


def learn(learner: Learner) -> None:
    while learner.step():
        pass


def write_what_waits(workshop: SlowWorkshop, learner: Learner) -> None:
    """Free the disk, and make no version before it has written, which would go there with what waits."""
    workshop.disk.free.set()
    learner._commits.finish()


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[SlowWorkshop]:
    with closing(SlowWorkshop(tmp_path)) as workshop:
        yield workshop


def test_versions_that_wait_for_the_disk_go_there_as_one(workshop: SlowWorkshop) -> None:
    learner = workshop.learner()
    assert learner.step()
    assert workshop.disk.held.wait(10)
    assert all(learner.step() for _ in range(4))
    newest = workshop.checkpoints.latest()
    assert newest is not None
    assert newest.version == 0  # nothing is visible before it is durable
    write_what_waits(workshop, learner)
    learn(learner)
    rows = workshop.checkpoints.following(0, 100)
    assert [row.version for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.applied_seq for row in rows] == [4, 8, 12, 16, 20, 24]
    assert [row.stored for row in rows[:5]] == [True, False, False, False, True]
    assert [row.by_class is not None for row in rows[:5]] == [True, False, False, False, True]


def test_each_version_of_a_group_is_what_it_would_be_alone(workshop: SlowWorkshop, tmp_path: Path) -> None:
    learner = workshop.learner()
    assert all(learner.step() for _ in range(5))
    workshop.disk.free.set()
    learn(learner)
    assert [each.identical for each in replay(workshop.records)] == [True] * 6
    with closing(Workshop(tmp_path / "alone")) as alone:
        alone.send(24)
        alone.learn()
        both = zip(alone.checkpoints.following(0, 100), workshop.checkpoints.following(0, 100), strict=True)
        assert all(one.sha256 == other.sha256 for one, other in both)


def test_what_comes_after_a_version_that_was_lost_is_lost_with_it(workshop: SlowWorkshop) -> None:
    learner = workshop.learner()
    assert learner.step()
    assert workshop.disk.held.wait(10)
    assert all(learner.step() for _ in range(3))
    workshop.disk.failures = 1
    workshop.disk.free.set()
    with pytest.raises(StoreUnavailable):
        learner._commits.finish()
    learner._commits.finish()
    assert workshop.checkpoints.following(0, 100) == []
    learner._reload()
    learn(learner)
    assert [row.applied_seq for row in workshop.checkpoints.following(0, 100)] == [4, 8, 12, 16, 20, 24]
    assert [each.identical for each in replay(workshop.records)] == [True] * 6


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise UpdateHarms("it harms", {})


def fail(*_: Any, **__: Any) -> NoReturn:
    raise UpdateRefused("it fails")


@pytest.mark.parametrize("spoil", [refuse, fail])
def test_what_versions_took_that_were_lost_is_taken_again_where_the_next_update_is_refused(
    workshop: SlowWorkshop, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., NoReturn]
) -> None:
    learner = workshop.learner()
    assert learner.step()
    assert workshop.disk.held.wait(10)
    assert all(learner.step() for _ in range(3))
    workshop.disk.failures = 1
    workshop.disk.free.set()
    with monkeypatch.context() as patched:
        patched.setattr("service.learner.update", spoil)
        with pytest.raises(StoreUnavailable):
            learner.step()
    learner._reload()
    learn(learner)
    rows = workshop.checkpoints.following(0, 100)
    assert sorted(seq for row in rows for new, _ in row.steps for seq in new) == list(range(1, 25))
    assert [row.applied_seq for row in rows] == [4, 8, 12, 16, 20, 24]


def test_a_failed_commit_is_told_at_the_next_one(workshop: SlowWorkshop) -> None:
    learner = workshop.learner()
    workshop.disk.failures = 1
    workshop.disk.free.set()
    with pytest.raises(StoreUnavailable):
        learn(learner)


def test_a_milestone_has_a_checkpoint_whatever_waits(workshop: SlowWorkshop) -> None:
    workshop.send(4 * MILESTONE)
    learner = workshop.learner()
    workshop.disk.free.set()
    for _ in range(MILESTONE - 2):
        learner.step()
        learner._commits.finish()
    workshop.disk.free.clear()
    workshop.disk.held.clear()
    learner.step()
    assert workshop.disk.held.wait(10)
    assert all(learner.step() for _ in range(3))
    write_what_waits(workshop, learner)
    rows = workshop.checkpoints.following(MILESTONE - 2, 4)
    assert [row.version for row in rows if row.stored] == [MILESTONE - 1, MILESTONE, MILESTONE + 2]


def fill_by_number(_: Learner, patched: pytest.MonkeyPatch) -> None:
    patched.setattr("service.commits.MOST_WAITING", 2)


def fill_by_bytes(learner: Learner, patched: pytest.MonkeyPatch) -> None:
    size = sum(map(len, files_of(learner._state).values()))
    patched.setattr("service.commits.MOST_WAITING_BYTES", 5 * size // 2)


@pytest.mark.parametrize("fill", [fill_by_number, fill_by_bytes])
def test_an_update_waits_for_the_disk_where_as_much_as_may_waits_already(
    workshop: SlowWorkshop, monkeypatch: pytest.MonkeyPatch, fill: Callable[[Learner, pytest.MonkeyPatch], None]
) -> None:
    learner = workshop.learner()
    assert learner.step()
    assert workshop.disk.held.wait(10)
    fill(learner, monkeypatch)
    assert learner.step()
    assert not workshop.disk.free.is_set()
    Timer(0.5, workshop.disk.free.set).start()
    assert learner.step()
    assert workshop.disk.free.is_set(), "the third went on before the first was on the disk"
    learn(learner)
    assert [each.identical for each in replay(workshop.records)] == [True] * 6


@pytest.mark.parametrize(("kind", "asked"), [("rollback", {"to": 3, "reapply": False}), ("forget", {"seqs": [10]})])
def test_an_act_on_a_version_amid_a_group_ends_in_the_bits_of_one_on_a_version_alone(
    workshop: SlowWorkshop, tmp_path: Path, kind: ActKind, asked: dict[str, Any]
) -> None:
    learner = workshop.learner()
    assert learner.step()
    assert workshop.disk.held.wait(10)
    assert all(learner.step() for _ in range(4))
    write_what_waits(workshop, learner)
    learn(learner)
    assert [row.version for row in workshop.checkpoints.following(1, 4) if not row.stored] == [2, 3, 4]
    with closing(Workshop(tmp_path / "alone")) as alone:
        alone.send(24)
        alone.learn()
        for each in (workshop, alone):
            act(each, kind, asked)
            each.learn()
        made = latest(workshop)
        assert made.reason == kind
        assert made.sha256 == latest(alone).sha256
    assert verify_versions(workshop.directory.root)
