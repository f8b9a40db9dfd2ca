from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from service.store import CheckpointStore, CorruptCheckpoint, LearnerRunning, Part, Version
from service.store.embedded import EmbeddedCheckpointStore

Opener = Callable[..., CheckpointStore]
SHAPING = {"model": {"x": 1}, "learning": {}}


def version(number: int, parts: Mapping[Part, str], first: int = 1, last: int = 0) -> Version:
    return Version(
        version=number,
        parent=number - 1 if number else None,
        created_at=1.5,
        first_seq=first,
        last_seq=last,
        steps=[[[first], []]],
        quarantined={},
        metrics={"items": last},
        by_class={"a": {"items": 1}},
        environment={"torch": "2"},
        reason="update",
        parts=parts,
        sha256=f"v{number}",
    )


def parts_of(store: CheckpointStore, number: int) -> dict[Part, str]:
    return {
        "frozen": store.put(b"never changes"),
        "model": store.put(b"model %d" % number),
        "learner": store.put(b"learner %d" % number),
    }


def fill(store: CheckpointStore, count: int) -> list[Version]:
    """Commit version 0 and `count` more, each of which took one entry."""
    rows = [version(0, parts_of(store, 0))]
    store.initialise(SHAPING, rows[0])
    for number in range(1, count + 1):
        rows.append(version(number, parts_of(store, number), number, number))
        store.commit(rows[-1])
    return rows


def test_an_empty_store_has_no_version(checkpoints: CheckpointStore) -> None:
    assert (checkpoints.latest(), checkpoints.get(0), checkpoints.shaping()) == (None, None, None)
    assert (checkpoints.page(None, 5), checkpoints.following(-1, 5), checkpoints.consumer_of(1)) == ([], [], None)


def test_a_version_is_read_back_as_it_was_committed(open_checkpoints: Opener) -> None:
    first = open_checkpoints()
    rows = fill(first, 2)
    other = open_checkpoints()
    assert other.latest() == other.get(2) == rows[2]
    assert other.get(0) == rows[0]
    assert other.shaping() == SHAPING
    assert other.path(rows[2].parts["model"]).read_bytes() == b"model 2"


def test_pages_go_down_and_following_goes_up(checkpoints: CheckpointStore) -> None:
    fill(checkpoints, 4)
    assert [row.version for row in checkpoints.page(None, 3)] == [4, 3, 2]
    assert [row.version for row in checkpoints.page(2, 3)] == [1, 0]
    assert checkpoints.page(0, 3) == []
    assert [row.version for row in checkpoints.following(-1, 3)] == [0, 1, 2]
    assert [row.version for row in checkpoints.following(2, 9)] == [3, 4]


def test_the_consumer_of_an_entry_is_the_version_whose_update_took_it(checkpoints: CheckpointStore) -> None:
    fill(checkpoints, 0)
    checkpoints.commit(version(1, parts_of(checkpoints, 1), 1, 3))
    checkpoints.commit(version(2, parts_of(checkpoints, 2), 4, 4))
    consumers = [checkpoints.consumer_of(seq) for seq in range(6)]
    assert [consumer and consumer.version for consumer in consumers] == [None, 1, 1, 1, 2, None]


def test_quarantined_entries_keep_their_reason(checkpoints: CheckpointStore) -> None:
    fill(checkpoints, 0)
    checkpoints.commit(replace(version(1, parts_of(checkpoints, 1), 1, 1), quarantined={1: "poison"}))
    latest = checkpoints.latest()
    assert latest
    assert latest.quarantined == {1: "poison"}


def test_only_the_newest_checkpoints_and_the_first_are_kept(open_checkpoints: Opener) -> None:
    store = open_checkpoints(keep=3)
    rows = fill(store, 8)
    stored = [row.version for row in store.page(None, 99) if row.stored]
    assert stored == [8, 7, 6, 0]
    for row in rows:
        for part in ("model", "learner"):
            if row.version in stored:
                assert store.path(row.parts[part]).exists()
            else:
                with pytest.raises(CorruptCheckpoint):
                    store.path(row.parts[part])
    assert store.path(rows[8].parts["frozen"]).read_bytes() == b"never changes"


def test_keeping_fewer_than_before_lets_go_of_the_rest(open_checkpoints: Opener) -> None:
    fill(open_checkpoints(keep=9), 6)
    store = open_checkpoints(keep=2)
    store.commit(version(7, parts_of(store, 7), 7, 7))
    assert [row.version for row in store.page(None, 99) if row.stored] == [7, 6, 0]


def test_a_changed_byte_is_found_and_a_missing_file_too(checkpoints: CheckpointStore) -> None:
    sha256 = checkpoints.put(b"weights")
    path = checkpoints.path(sha256)
    path.write_bytes(b"weighty")
    with pytest.raises(CorruptCheckpoint, match="holds content with SHA-256"):
        checkpoints.path(sha256)
    path.unlink()
    with pytest.raises(CorruptCheckpoint, match="can't be read"):
        checkpoints.path(sha256)


def test_a_second_learner_is_refused_until_the_first_has_ended(open_checkpoints: Opener) -> None:
    first, second = open_checkpoints(), open_checkpoints()
    with first.lead(), pytest.raises(LearnerRunning, match="works on the data directory"), second.lead():
        pass
    with second.lead():
        pass


def test_files_that_no_version_names_are_removed_when_a_learner_starts(open_checkpoints: Opener) -> None:
    store = open_checkpoints()
    rows = fill(store, 1)
    orphan = store.path(store.put(b"crashed before its row"))
    with store.lead():
        assert not orphan.exists()
        assert store.path(rows[1].parts["model"]).exists()


def test_a_follower_is_woken_by_a_commit(open_checkpoints: Opener) -> None:
    leader, follower = open_checkpoints(), open_checkpoints()
    fill(leader, 0)
    follower.wait(0)  # from here on it listens
    woken = threading.Event()
    thread = threading.Thread(target=lambda: (follower.wait(20), woken.set()))
    thread.start()
    leader.commit(version(1, parts_of(leader, 1), 1, 1))
    assert woken.wait(5)
    thread.join()


def test_the_same_number_can_not_be_committed_twice(checkpoints: CheckpointStore) -> None:
    rows = fill(checkpoints, 1)
    with pytest.raises(Exception, match="UNIQUE"):
        checkpoints.commit(rows[1])
    assert isinstance(checkpoints, EmbeddedCheckpointStore)
