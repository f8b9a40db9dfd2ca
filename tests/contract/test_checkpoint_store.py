from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from service.store import CheckpointStore, CorruptCheckpoint, DataDirectoryError, LearnerRunning, Part, Version
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from tests.damaging import flip, remove

Opener = Callable[..., CheckpointStore]
SHAPING = {"model": {"x": 1}, "learning": {}}
GATE = b"{}"


def version(number: int, parts: Mapping[Part, str], first: int = 1, last: int = 0) -> Version:
    return Version(
        version=number,
        parent=number - 1 if number else None,
        updates=number,
        created_at=1.5,
        first_seq=first,
        last_seq=last,
        applied_seq=last,
        steps=[[list(range(first, last + 1)), []]],
        metrics={"items": last},
        by_class={"a": {"items": 1}},
        environment={"torch": "2"},
        reason="update",
        parts=parts,
        sha256=f"v{number}",
    )


def parts_of(store: CheckpointStore, number: int) -> dict[Part, str]:
    return store.put({"frozen": b"never changes", "model": b"model %d" % number, "learner": b"learner %d" % number})


def fill(store: CheckpointStore, count: int) -> list[Version]:
    """Commit version 0 and `count` more, each of which took one entry."""
    rows = [version(0, parts_of(store, 0))]
    store.initialise(SHAPING, rows[0])
    for number in range(1, count + 1):
        rows.append(version(number, parts_of(store, number), number, number))
        store.commit([rows[-1]], gate=GATE)
    return rows


def test_an_empty_store_has_no_version(checkpoints: CheckpointStore) -> None:
    assert (checkpoints.latest(), checkpoints.get(0), checkpoints.shaping()) == (None, None, None)
    assert (checkpoints.page(None, 5), checkpoints.following(-1, 5), checkpoints.takers(1)) == ([], [], [])


def test_a_version_is_read_back_as_it_was_committed(open_checkpoints: Opener) -> None:
    first = open_checkpoints()
    rows = fill(first, 2)
    other = open_checkpoints()
    assert other.latest() == other.get(2) == rows[2]
    assert other.get(0) == rows[0]
    assert other.shaping() == SHAPING
    assert other.read(rows[2].parts["model"]) == b"model 2"


def test_pages_go_down_and_following_goes_up(checkpoints: CheckpointStore) -> None:
    fill(checkpoints, 4)
    assert [row.version for row in checkpoints.page(None, 3)] == [4, 3, 2]
    assert [row.version for row in checkpoints.page(2, 3)] == [1, 0]
    assert checkpoints.page(0, 3) == []
    assert [row.version for row in checkpoints.following(-1, 3)] == [0, 1, 2]
    assert [row.version for row in checkpoints.following(2, 9)] == [3, 4]


def takers(store: CheckpointStore, *seqs: int) -> list[list[int]]:
    return [[row.version for row in store.takers(seq)] for seq in seqs]


def test_the_taker_of_an_entry_is_the_version_whose_update_took_it(checkpoints: CheckpointStore) -> None:
    fill(checkpoints, 0)
    checkpoints.commit([version(1, parts_of(checkpoints, 1), 1, 3)], gate=GATE)
    checkpoints.commit([version(2, parts_of(checkpoints, 2), 4, 4)], gate=GATE)
    assert takers(checkpoints, *range(6)) == [[], [1], [1], [1], [2], []]


def branch(store: CheckpointStore, number: int, parent: int) -> Version:
    row = replace(version(number, store.get(parent).parts, number, number), parent=parent)  # type: ignore[union-attr]
    store.commit([row], gate=GATE)
    return row


def superseded(store: CheckpointStore) -> dict[int, int]:
    return {row.version: row.superseded for row in store.following(-1, 99) if row.superseded is not None}


def test_the_served_line_is_the_newest_version_and_its_ancestors(open_checkpoints: Opener) -> None:
    store = open_checkpoints(keep=99)
    fill(store, 4)
    branch(store, 5, parent=2)
    assert superseded(store) == {3: 5, 4: 5}
    branch(store, 6, parent=5)
    branch(store, 7, parent=3)  # back to a line that was left
    assert superseded(store) == {4: 5, 5: 7, 6: 7}
    branch(store, 8, parent=6)
    assert superseded(store) == {3: 8, 4: 5, 7: 8}
    branch(store, 9, parent=0)
    assert superseded(store).keys() == {1, 2, 3, 4, 5, 6, 7, 8}


def test_an_entry_that_was_taken_again_has_its_takers_newest_first(open_checkpoints: Opener) -> None:
    store = open_checkpoints(keep=99)
    fill(store, 3)
    again = replace(version(4, parts_of(store, 4), 2, 3), parent=1)
    store.commit([again], gate=GATE)
    assert takers(store, 1, 2, 3) == [[1], [4, 2], [4, 3]]


def test_forgetting_lets_go_of_every_checkpoint_that_has_seen_the_entry(open_checkpoints: Opener) -> None:
    store = open_checkpoints(keep=99)
    rows = fill(store, 3)
    store.commit([version(4, parts_of(store, 4), 4, 4)], gate=GATE)
    clean = replace(version(5, dict.fromkeys(rows[0].parts, ""), 3, 3), parent=1, stored=False)
    store.commit([clean, version(6, parts_of(store, 6))], gate=GATE, forgotten=[2, 4])
    assert [row.version for row in store.following(-1, 99) if row.stored] == [0, 1, 6]
    with pytest.raises(CorruptCheckpoint):
        store.read(rows[2].parts["model"])


def test_what_a_row_says_of_an_entry_can_be_erased(open_checkpoints: Opener) -> None:
    store = open_checkpoints()
    fill(store, 1)
    store.commit([replace(version(2, parts_of(store, 2), 2, 3), quarantined={2: "says too much", 3: "bad"})], gate=GATE)
    store.erase([2])
    told = store.get(2)
    assert told
    assert told.quarantined == {2: "forgotten", 3: "bad"}


def test_what_the_gate_knows_is_that_of_the_last_commit(open_checkpoints: Opener) -> None:
    store = open_checkpoints()
    fill(store, 1)
    store.commit([version(2, parts_of(store, 2), 2, 2)], gate=b"[2]")
    assert open_checkpoints().gate() == b"[2]"


def test_quarantined_entries_keep_their_reason(checkpoints: CheckpointStore) -> None:
    fill(checkpoints, 0)
    checkpoints.commit([replace(version(1, parts_of(checkpoints, 1), 1, 1), quarantined={1: "poison"})], gate=GATE)
    latest = checkpoints.latest()
    assert latest
    assert latest.quarantined == {1: "poison"}


def test_the_newest_checkpoints_are_kept_and_fewer_the_older_they_get(open_checkpoints: Opener) -> None:
    store = open_checkpoints(keep=3)
    rows = fill(store, 20)
    stored = [row.version for row in store.page(None, 99) if row.stored]
    assert stored == [20, 19, 18, 16, 8, 0]
    for row in rows:
        for part in ("model", "learner"):
            if row.version in stored:
                assert store.read(row.parts[part]) == b"%s %d" % (part.encode(), row.version)
            else:
                with pytest.raises(CorruptCheckpoint):
                    store.read(row.parts[part])
    assert store.mapped(rows[20].parts["frozen"])[:] == b"never changes"


def test_keeping_fewer_than_before_lets_go_of_the_rest(open_checkpoints: Opener) -> None:
    fill(open_checkpoints(keep=99), 19)
    store = open_checkpoints(keep=2)
    store.commit([version(20, parts_of(store, 20), 20, 20)], gate=GATE)
    assert [row.version for row in store.page(None, 99) if row.stored] == [20, 19, 18, 16, 8, 0]


def test_a_part_that_a_kept_version_shares_with_a_released_one_stays(open_checkpoints: Opener) -> None:
    store = open_checkpoints(keep=2)
    fill(store, 0)
    shared = parts_of(store, 1)
    for number in (1, 2, 3):  # as after quarantined updates, or a rollback: the same bytes again
        store.commit([version(number, shared, number, number)], gate=GATE)
    store.commit([version(4, parts_of(store, 4), 4, 4)], gate=GATE)
    assert [row.version for row in store.page(None, 99) if row.stored] == [4, 3, 2, 0]
    assert store.read(shared["model"]) == b"model 1"
    for number in (5, 6, 7, 8, 9):
        store.commit([version(number, parts_of(store, number), number, number)], gate=GATE)
    assert 2 not in [row.version for row in store.page(None, 99) if row.stored]
    with pytest.raises(CorruptCheckpoint):
        store.read(shared["model"])


@pytest.mark.parametrize("read", ["read", "mapped"])
def test_a_changed_bit_is_found_and_a_missing_part_too(directory: DataDirectory, open_checkpoints: Opener, read: str) -> None:
    checkpoints = open_checkpoints()
    sha256 = checkpoints.put({"model": b"weights"})["model"]
    flip(directory, sha256)
    with pytest.raises(CorruptCheckpoint, match=f"{sha256} holds content with SHA-256"):
        getattr(checkpoints, read)(sha256)
    remove(directory, sha256)
    with pytest.raises(CorruptCheckpoint, match=f"{sha256} can't be read: No such file"):
        getattr(checkpoints, read)(sha256)


def test_a_damaged_part_is_mended_when_it_is_put_again(directory: DataDirectory, open_checkpoints: Opener) -> None:
    checkpoints = open_checkpoints()
    sha256 = checkpoints.put({"model": b"weights"})["model"]
    flip(directory, sha256)
    assert checkpoints.put({"model": b"weights"})["model"] == sha256
    assert checkpoints.read(sha256) == b"weights"


def test_a_damaged_part_is_mended_by_a_file_of_its_name(directory: DataDirectory, open_checkpoints: Opener) -> None:
    checkpoints = open_checkpoints()
    rows = fill(checkpoints, 1)
    sha256 = rows[1].parts["model"]
    flip(directory, sha256)
    directory.checkpoint(sha256).write_bytes(b"model 1")
    assert checkpoints.read(sha256) == checkpoints.mapped(sha256)[:] == b"model 1"
    with checkpoints.lead():
        assert checkpoints.read(sha256) == b"model 1"


def test_a_damaged_file_does_not_hide_a_part_that_is_committed(directory: DataDirectory, open_checkpoints: Opener) -> None:
    checkpoints = open_checkpoints()
    fill(checkpoints, 0)
    sha256 = hashlib.sha256(b"model 1").hexdigest()
    directory.checkpoint(sha256).write_bytes(b"damaged")
    row = version(1, {"frozen": sha256, "model": sha256, "learner": sha256}, 1, 1)
    checkpoints.commit([row], gate=GATE, contents={sha256: b"model 1"})
    assert checkpoints.read(sha256) == b"model 1"


@pytest.mark.parametrize("type_", ["TEXT", "INTEGER"])
def test_a_part_that_is_no_blob_any_more_is_damaged_or_read_and_can_be_put_again(directory: DataDirectory, type_: str) -> None:
    with closing(EmbeddedCheckpointStore(directory, keep=3)) as checkpoints:
        for content in (b"text", b"\xff\x00no text"):
            sha256 = checkpoints.put({"model": content})["model"]
            with closing(sqlite3.connect(directory.versions)) as versions, versions:
                versions.execute(f"UPDATE parts SET content = CAST(content AS {type_}) WHERE sha256 = ?", (sha256,))
            if type_ == "TEXT":  # as one changed bit makes of it: its bytes are the same
                assert checkpoints.read(sha256) == content
            else:
                with pytest.raises(CorruptCheckpoint):
                    checkpoints.read(sha256)
            assert checkpoints.put({"model": content})["model"] == sha256
            assert checkpoints.read(sha256) == content


def test_what_is_written_to_a_part_that_was_read_stays_there(checkpoints: CheckpointStore) -> None:
    sha256 = checkpoints.put({"frozen": b"weights"})["frozen"]
    for read in (checkpoints.read, checkpoints.mapped):
        read(sha256)[0] = 0
        assert read(sha256)[:] == b"weights"


def test_small_and_large_parts_are_committed_with_their_version(directory: DataDirectory, open_checkpoints: Opener) -> None:
    checkpoints = open_checkpoints()
    contents = {hashlib.sha256(content).hexdigest(): content for content in (b"small", b"large" * 10**5)}
    small, large = contents
    fill(checkpoints, 0)
    row = version(1, {"frozen": small, "model": small, "learner": large}, 1, 1)
    checkpoints.commit([row], gate=GATE, contents=contents)
    assert {sha256: bytes(checkpoints.read(sha256)) for sha256 in contents} == contents
    assert directory.checkpoint(large).exists()


def test_a_second_learner_is_refused_until_the_first_has_ended(open_checkpoints: Opener) -> None:
    first, second = open_checkpoints(), open_checkpoints()
    with first.lead(), pytest.raises(LearnerRunning, match="works on the data directory"), second.lead():
        pass
    with second.lead():
        pass


def test_a_learner_that_stands_by_leads_once_the_first_has_ended(open_checkpoints: Opener) -> None:
    first, second = open_checkpoints(), open_checkpoints()
    turns = []
    leading = ExitStack()
    leading.enter_context(first.lead())

    def wait() -> None:
        turns.append(second.led())
        if len(turns) == 3:
            leading.close()

    with second.lead(wait):
        assert second.led()
    assert turns == [True, True, True]


def test_parts_that_no_version_names_are_removed_when_a_learner_starts(open_checkpoints: Opener) -> None:
    store = open_checkpoints()
    rows = fill(store, 1)
    orphan = store.put({"model": b"crashed before its row"})["model"]
    with store.lead():
        with pytest.raises(CorruptCheckpoint):
            store.read(orphan)
        assert store.read(rows[1].parts["model"]) == b"model 1"


def test_a_learner_does_not_start_where_the_versions_are_lost(directory: DataDirectory, open_checkpoints: Opener) -> None:
    store = open_checkpoints()
    fill(store, 0)
    store.close()
    directory.versions.unlink()
    with pytest.raises(DataDirectoryError, match=r"has no version, and there were some"), open_checkpoints().lead():
        pass


@pytest.mark.parametrize("waking", ["a commit", "a stop"])
def test_a_follower_is_woken(open_checkpoints: Opener, waking: str) -> None:
    leader, follower = open_checkpoints(), open_checkpoints()
    fill(leader, 0)
    follower.wait(0)  # from here on it listens
    woken = threading.Event()
    thread = threading.Thread(target=lambda: (follower.wait(20), woken.set()))
    thread.start()
    if waking == "a commit":
        leader.commit([version(1, parts_of(leader, 1), 1, 1)], gate=GATE)
    else:
        leader.wake()
    assert woken.wait(5)
    thread.join()


def test_the_same_number_can_not_be_committed_twice(checkpoints: CheckpointStore) -> None:
    rows = fill(checkpoints, 1)
    with pytest.raises(Exception, match="UNIQUE"):
        checkpoints.commit([rows[1]], gate=GATE)
    assert isinstance(checkpoints, EmbeddedCheckpointStore)
