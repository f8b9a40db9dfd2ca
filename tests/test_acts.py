"""Time travel with a learner that is stepped by hand: rollback, release, and unlearning to the bit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from service.commits import Outcome
from service.demo.pictures import LOOKS, draw
from service.fates import fate_of, refusal
from service.forgets import MOST_DEATHS
from service.forgetting import Forgetting
from service.learner import Learner
from service.position import Position
from service.replay import LearnedFromForgotten, rebuild, recompute, replay
from service.settings import GateSettings
from service.store import ActKind, CorruptCheckpoint, NewEntry, Part, Prediction, StoreUnavailable, Version
from service.store.embedded import EmbeddedPredictionJournal
from service.verify import consumed
from tests.damaging import flip, remove
from tests.workshop import MODEL, PICTURES, Workshop

Batch = Sequence[tuple[bytes, str]]


def batches(sizes: Sequence[int], seed: int = 0) -> list[Batch]:
    rng = np.random.default_rng(seed)
    points = [[(rng.normal(size=2), "ab"[rng.integers(2)]) for _ in range(size)] for size in sizes]
    return [[(json.dumps(point.tolist()).encode(), label) for point, label in batch] for batch in points]


def append(workshop: Workshop, batch: Batch, **extra: Any) -> list[int]:
    entries = [NewEntry(instance=point, label=json.dumps(label), digest=b"", **extra) for point, label in batch]
    return workshop.log.append(entries).result(10)


def act(workshop: Workshop, kind: ActKind, asked: Any) -> int:
    (seq,) = workshop.log.append([NewEntry(kind=kind, instance=b"", label=json.dumps(asked), digest=b"")]).result(10)
    return seq


def learn(workshop: Workshop, given: Sequence[Batch]) -> list[int]:
    """Learn each batch as one update."""
    seqs = []
    for batch in given:
        seqs += append(workshop, batch)
        workshop.learn()
    return seqs


def latest(workshop: Workshop) -> Version:
    row = workshop.checkpoints.latest()
    assert row is not None
    return row


def status(workshop: Workshop, seq: int) -> str:
    return fate_of(workshop.log, workshop.checkpoints, workshop.log.fetch([seq])[seq]).status


def test_a_rollback_is_a_new_version_with_the_bits_of_the_old_one(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        seqs = learn(workshop, batches([3, 3, 3, 3]))
        seq = act(workshop, "rollback", {"to": 2, "reapply": False})
        workshop.learn()
        made, target = latest(workshop), workshop.checkpoints.get(2)
        assert target is not None
        assert (made.version, made.parent, made.reason, made.act) == (5, 2, "rollback", seq)
        assert (made.sha256, made.parts, made.updates) == (target.sha256, target.parts, 2)
        assert [status(workshop, each) for each in seqs] == ["applied"] * 6 + ["skipped"] * 6
        assert status(workshop, seq) == "applied"
        learn(workshop, batches([2], seed=1))
        assert latest(workshop).parent == 5
        assert consumed(workshop.checkpoints) == dict.fromkeys([*seqs[:6], seq + 1, seq + 2], 1)
        assert all(each.identical for each in replay(workshop.records))


def test_a_rollback_that_applies_again_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Nothing is learned after the target but the same batches: the counted randomness makes the same version of them."""
    with closing(Workshop(tmp_path, update_items=3)) as workshop:
        seqs = learn(workshop, batches([3, 3, 3, 3]))
        before = latest(workshop)
        act(workshop, "rollback", {"to": 2, "reapply": True})
        learner = workshop.learner()
        assert learner.step()
        learner._commits.finish()
        assert latest(workshop).backlog == ((7, 12),)
        assert [status(workshop, each) for each in seqs] == ["applied"] * 6 + ["pending"] * 6
        workshop.learn()  # by another learner, as after a crash
        assert latest(workshop).sha256 == before.sha256
        assert latest(workshop).version == 7
        assert {status(workshop, each) for each in seqs} == {"applied"}
        assert consumed(workshop.checkpoints) == dict.fromkeys(seqs, 1)
        assert all(each.identical for each in replay(workshop.records))


def test_a_rollback_of_a_rollback_comes_back_to_the_line_that_was_left(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        seqs = learn(workshop, batches([3, 3, 3]))
        act(workshop, "rollback", {"to": 1, "reapply": False})
        workshop.learn()
        act(workshop, "rollback", {"to": 3, "reapply": False})
        workshop.learn()
        assert {status(workshop, each) for each in seqs} == {"applied"}
        assert latest(workshop).sha256 == workshop.checkpoints.get(3).sha256  # type: ignore[union-attr]


def test_a_rollback_to_a_version_without_a_checkpoint_replays_it(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path, keep=2)) as workshop:
        learn(workshop, batches([3] * 6))
        target = workshop.checkpoints.get(2)
        assert target is not None
        assert not target.stored
        act(workshop, "rollback", {"to": 2, "reapply": False})
        workshop.learn()
        assert latest(workshop).sha256 == target.sha256
        assert latest(workshop).stored


def test_a_rollback_to_what_does_not_exist_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3]))
        seq = act(workshop, "rollback", {"to": 99, "reapply": False})
        workshop.learn()
        told = fate_of(workshop.log, workshop.checkpoints, workshop.log.fetch([seq])[seq])
        assert (told.status, told.reason) == ("quarantined", "there is no version 99")
        learn(workshop, batches([3], seed=1))
        assert latest(workshop).applied_seq == seq + 3


def test_an_act_that_was_refused_stays_refused_on_any_line(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3, 3]))
        seq = act(workshop, "rollback", {"to": 99, "reapply": False})
        workshop.learn()
        act(workshop, "rollback", {"to": 1, "reapply": True})
        workshop.learn()
        assert status(workshop, seq) == "quarantined"


def test_what_is_in_quarantine_can_be_released(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([4]))
        learner = workshop.learner()
        (seq,) = append(workshop, [(b"[1.0, 1.0]", "a")])
        intake = learner._next(None)
        assert intake is not None
        learner._set_aside(Outcome(position=intake.position, span=intake.span), {seq: "suspicious"})
        learner._commits.finish()
        assert status(workshop, seq) == "quarantined"
        act(workshop, "release", {"version": latest(workshop).version})
        workshop.learn()
        assert status(workshop, seq) == "applied"
        assert latest(workshop).reason == "release"
        again = act(workshop, "release", {"version": latest(workshop).version - 1})
        workshop.learn()
        assert status(workshop, again) == "quarantined", "what is released is learned once"
        assert consumed(workshop.checkpoints)[seq] == 1
        refused = act(workshop, "release", {"version": 1})
        workshop.learn()
        told = fate_of(workshop.log, workshop.checkpoints, workshop.log.fetch([refused])[refused])
        assert told.reason == "version 1 has no feedback in quarantine"
        assert all(each.identical for each in replay(workshop.records))


def test_the_log_of_the_service_quotes_nothing_that_was_sent_nor_does_what_is_left_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = {**MODEL, "head": {**MODEL["head"], "max_classes": 2}}
    with closing(Workshop(tmp_path, model=model)) as workshop:
        learn(workshop, batches([4, 4]))
        (seq,) = append(workshop, [(b"[1.0, 1.0]", "private-label")])
        workshop.learn()
        assert "private-label" in (refusal(workshop.checkpoints, seq) or "")
        released = act(workshop, "release", {"version": latest(workshop).version})
        workshop.learn()
        assert refusal(workshop.checkpoints, released) == "the update failed: LabelError"
        act(workshop, "forget", {"seqs": [seq]})
        workshop.learn()
        assert "private-label" not in caplog.text
        assert files_with(workshop.directory.root, b"private-label") == []


@pytest.mark.parametrize("part", ["frozen", "model", "learner"])
def test_a_damaged_newest_checkpoint_is_made_again_from_the_log(tmp_path: Path, part: Part) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3, 3, 3]))
        newest = latest(workshop)
        good = workshop.checkpoints.read(newest.parts[part])
        flip(workshop.directory, newest.parts[part])
        learn(workshop, batches([3], seed=1))
        assert latest(workshop).version == 4
        assert workshop.checkpoints.read(newest.parts[part]) == good
        assert all(each.identical for each in replay(workshop.records))


def test_what_can_not_be_made_again_is_told_with_a_way_out(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path, keep=2)) as workshop:
        learn(workshop, batches([3, 3, 3]))
        for row in workshop.checkpoints.following(0, 9):
            if row.stored:
                remove(workshop.directory, row.parts["model"])
        with workshop.log._database.write() as connection:
            connection.execute("DELETE FROM feedback WHERE seq = 2")
        with pytest.raises(CorruptCheckpoint, match=r"can't be read: .*can't be made again: .*seq 2.*Restore a backup"):
            workshop.learner()


class Twins:
    """One learner that is given everything and forgets, and one that never sees what the other forgets."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.seen = Workshop(folder / "seen", update_items=256, **options)
        self.never = Workshop(folder / "never", update_items=256, **options)

    def close(self) -> None:
        self.seen.close()
        self.never.close()

    def learn(self, given: Sequence[Batch], without: set[int]) -> None:
        for batch in given:
            for workshop, gone in ((self.seen, set()), (self.never, without)):
                append(workshop, batch)
                with workshop.log._database.write() as connection:
                    connection.executemany("DELETE FROM feedback WHERE seq = ?", ((seq,) for seq in gone))
                workshop.learn()

    def forget(self, asked: Any) -> int:
        seq = act(self.seen, "forget", asked)
        act(self.never, "forget", {"seqs": []})
        for workshop in (self.seen, self.never):
            workshop.learn()
        return seq


def test_forgetting_ends_in_the_bits_of_a_learner_that_never_saw_the_items(tmp_path: Path) -> None:
    with closing(Twins(tmp_path, keep=3)) as twins:
        gone = {2, 9, 10, 11, 17}  # 9 to 11 are a whole batch
        twins.learn(batches([4, 4, 3, 4, 4, 5]), gone)
        seq = twins.forget({"seqs": sorted(gone)})
        seen, never = latest(twins.seen), latest(twins.never)
        assert seen.sha256 == never.sha256
        assert seen.reason == "forget"
        assert status(twins.seen, seq) == "applied"
        assert {status(twins.seen, each) for each in gone} == {"forgotten"}
        assert {status(twins.seen, each) for each in range(1, 25)} == {"applied", "forgotten"}
        assert [each.identical for each in replay(twins.seen.records)] == [None] * 6 + [True] * 6
        twins.learn(batches([3, 3], seed=5), set())
        assert latest(twins.seen).sha256 == latest(twins.never).sha256


@settings(max_examples=15)
@given(data=st.data(), rehearsal=st.sampled_from(["mixed", "recent", "reservoir", "balanced"]))
def test_forgetting_any_items_of_any_batches_is_exact(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rehearsal: str
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=8))
    gone = data.draw(st.sets(st.integers(1, sum(sizes)), min_size=1))
    with closing(Twins(tmp_path_factory.mktemp("twins"), keep=2)) as twins:
        for workshop in (twins.seen, twins.never):
            workshop.shaping["learning"] |= {"rehearsal": rehearsal, "memory": 5, "recent_age": 3, "warm_up": 6}
        twins.learn(batches(sizes, seed=3), gone)
        twins.forget({"seqs": sorted(gone)})
        assert latest(twins.seen).sha256 == latest(twins.never).sha256


def test_live_feedback_is_learned_while_a_forgetting_is_under_way(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 6))
        act(workshop, "forget", {"seqs": [4]})
        learner = workshop.learner()
        learner.step()  # the act is read
        late = append(workshop, batches([3], seed=9)[0])
        learner.step()
        learner._commits.finish()
        assert status(workshop, late[0]) == "applied"
        assert status(workshop, 4) == "applied"
        while learner.step():
            pass
        assert status(workshop, 4) == "forgotten"
        assert {status(workshop, seq) for seq in late} == {"applied"}


def test_a_forgetting_that_a_crash_cut_off_is_taken_up_again(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 4))
        seq = act(workshop, "forget", {"seqs": [4]})
        learner = workshop.learner()
        learner.step()
        late = append(workshop, batches([3], seed=9)[0])
        learner.step()  # commits a version that is past the act
        learner._commits.finish()
        assert latest(workshop).applied_seq > seq
        assert status(workshop, seq) == "pending"
        workshop.learn()  # another learner
        assert status(workshop, seq) == "applied"
        assert status(workshop, 4) == "forgotten"
        assert status(workshop, late[0]) == "applied"


def test_acts_that_wait_for_a_forgetting_are_neither_begun_nor_blamed_for_the_death_of_a_learner(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 4))
        seqs = [act(workshop, "forget", {"seqs": [4]}), act(workshop, "rollback", {"to": 1, "reapply": False})]
        for _ in range(5):
            learner = workshop.learner()
            learner.blame_predecessor("killed by SIGKILL")
            while learner._forgets.forgetting is None:
                learner.step()
            assert {status(workshop, seq) for seq in seqs} == {"pending"}
        workshop.learn()
        assert {status(workshop, seq) for seq in seqs} == {"applied"}


def test_an_erasure_that_a_crash_cut_off_is_done_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 4))
        act(workshop, "forget", {"seqs": [4]})
        with monkeypatch.context() as patched:
            patched.setattr(workshop.features, "erase", interrupted)
            with pytest.raises(KeyboardInterrupt):
                workshop.learn()
        assert workshop.log.fetch([4])[4].kind == "feedback"
        workshop.learn()
        assert workshop.log.fetch([4])[4].kind == "forgotten"


def test_versions_that_come_while_whatif_looks_are_not_made_anew(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 3))
        served = latest(workshop)
        forgetting = Forgetting(workshop.records, [2], served)
        learn(workshop, batches([3], seed=1))
        assert any(forgetting.advance(served) for _ in range(100))  # on a busy machine a slice of time may end before
        assert forgetting.at == served.version


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def failing_once(call: Callable[..., Any], *, at: int = 1) -> Callable[..., Any]:
    """Return a call of a store that fails the `at`-th time, as on a disk that is full for a moment."""
    calls = itertools.count(1)

    def failing(*given: Any, **named: Any) -> Any:
        if next(calls) == at:
            raise StoreUnavailable("disk I/O error")
        return call(*given, **named)

    return failing


def run(learner: Learner, died: str | None = None) -> None:
    """Learn all that waits as `Learner.run` does: what the disk fails at is tried again; `died` is how the last one ended."""
    if died is not None:
        learner.blame_predecessor(died)
    going = True
    while going:
        try:
            going = learner.step()
        except StoreUnavailable:
            with suppress(StoreUnavailable):
                learner._commits.finish()
            learner._reload()


def test_nothing_is_erased_before_the_version_that_never_saw_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 4))
        seq = act(workshop, "forget", {"seqs": [4]})
        monkeypatch.setattr(workshop.checkpoints, "commit", failing_once(workshop.checkpoints.commit))
        run(workshop.learner())
        assert (status(workshop, seq), status(workshop, 4)) == ("applied", "forgotten")
        assert latest(workshop).reason == "forget"
        assert [each.identical for each in replay(workshop.records)] == [True] + [None] * 3 + [True] * 4


@pytest.mark.parametrize("at", range(1, 8))
def test_a_disk_that_fails_for_a_moment_changes_nothing_of_a_forgetting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with closing(Twins(tmp_path)) as twins:
        twins.learn(batches([3] * 4), {4})
        act(twins.seen, "forget", {"seqs": [4]})
        act(twins.never, "forget", {"seqs": []})
        learner = twins.seen.learner()
        monkeypatch.setattr(twins.seen.log, "fetch", failing_once(twins.seen.log.fetch, at=at))
        run(learner)
        twins.never.learn()
        assert latest(twins.seen).sha256 == latest(twins.never).sha256
        assert {status(twins.seen, each) for each in range(1, 13)} == {"applied", "forgotten"}


def test_a_forgetting_is_carried_out_once_where_an_update_fails_meanwhile(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 4))
        seq = act(workshop, "forget", {"seqs": [4]})
        learner = workshop.learner()
        learner.step()  # the act is read, and not on record yet
        learner._reload()
        run(learner)
        assert status(workshop, 4) == "forgotten"
        assert [row.act for row in workshop.checkpoints.following(0, 99) if row.reason == "forget"] == [seq]


def test_a_forgetting_that_can_not_be_done_is_set_aside_and_learning_goes_on(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 4))
        seq = act(workshop, "forget", {"seqs": [4]})
        with workshop.log._database.write() as connection:
            connection.execute("UPDATE feedback SET weight = 2 WHERE seq = 8")
        workshop.learn()
        with workshop.log._database.write() as connection:
            connection.execute("UPDATE feedback SET weight = 1 WHERE seq = 8")
        told = fate_of(workshop.log, workshop.checkpoints, workshop.log.fetch([seq])[seq])
        assert told.status == "quarantined"
        assert told.reason == "the data is damaged; the log of the service says what is to be done"
        assert {status(workshop, each) for each in learn(workshop, batches([3], seed=1))} == {"applied"}


def files_with(folder: Path, needle: bytes) -> list[str]:
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and needle in path.read_bytes()]


def test_what_was_forgotten_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 3))
        journal = EmbeddedPredictionJournal(workshop.directory, max_age=60.0, max_bytes=10**8)
        secret = b"[271828.1828, 3.0]"
        ids = ["aa" * 16, "bb" * 16, "cc" * 16]
        journal.put([Prediction(id, 1, secret if id != ids[2] else b"[0.5, 3.0]", "{}") for id in ids])
        journal.close()
        (seq,) = append(workshop, [(secret, "private-label")], key="private-key", prediction_id=ids[0])
        learn(workshop, batches([3], seed=2))
        needles = [secret, b"private-label", b"private-key"]
        assert all(files_with(workshop.directory.root, needle) for needle in needles)
        act(workshop, "forget", {"seqs": [seq]})
        workshop.learn()
        assert [files_with(workshop.directory.root, needle) for needle in needles] == [[], [], []]
        journal = EmbeddedPredictionJournal(workshop.directory, max_age=60.0, max_bytes=10**8)
        assert journal.get(ids).keys() == {ids[2]}
        journal.close()


def test_feedback_that_was_forgotten_is_not_learned_when_its_client_sends_it_again(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        (seq,) = append(workshop, batches([1])[0], key="order-1")
        workshop.learn()
        act(workshop, "forget", {"seqs": [seq]})
        workshop.learn()
        assert append(workshop, batches([1], seed=4)[0], key="order-1") == [seq]
        assert append(workshop, batches([1], seed=4)[0], key="order-2") != [seq]


@pytest.mark.parametrize("again", [False, True], ids=["new", "backlog"])
def test_any_number_of_tombstones_is_passed_over(tmp_path: Path, again: bool) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        workshop.log.erase(append(workshop, batches([1500])[0]))
        (seq,) = append(workshop, batches([1])[0])
        position = Position(seq, ((1, seq),)) if again else Position()
        intake = position.next(workshop.log, 1)
        assert intake is not None
        assert (intake.span, intake.position) == ((seq, seq), Position(seq))
        assert intake.position.next(workshop.log, 1) is None


def test_all_that_a_source_has_brought_so_far_is_forgotten(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        one = append(workshop, batches([3])[0], source="one")
        two = append(workshop, batches([3], seed=1)[0], source="two")
        workshop.learn()
        act(workshop, "forget", {"source": "one"})
        later = append(workshop, batches([2], seed=2)[0], source="one")
        workshop.learn()
        assert {status(workshop, seq) for seq in one} == {"forgotten"}
        assert {status(workshop, seq) for seq in two + later} == {"applied"}


def test_a_version_that_has_learned_from_the_forgotten_can_not_be_gone_back_to(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 3))
        act(workshop, "forget", {"seqs": [4]})
        workshop.learn()
        with pytest.raises(LearnedFromForgotten, match="version 2 learned from seq 4, which was forgotten"):
            rebuild(workshop.records, workshop.checkpoints.get(2))  # type: ignore[arg-type]
        seq = act(workshop, "rollback", {"to": 3, "reapply": False})
        workshop.learn()
        told = fate_of(workshop.log, workshop.checkpoints, workshop.log.fetch([seq])[seq])
        assert told.status == "quarantined"
        assert told.reason is not None
        assert "forgotten" in told.reason
        act(workshop, "rollback", {"to": 1, "reapply": True})
        workshop.learn()
        assert status(workshop, 4) == "forgotten"
        assert {status(workshop, each) for each in (2, 5, 9)} == {"applied"}


def test_forgetting_is_exact_where_the_encoder_is_frozen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [(draw(LOOKS[number % 6], rng, 32), str(number % 6)) for number in range(12)]
    given = [pictures[:3], pictures[3:8], pictures[8:]]
    with closing(Twins(tmp_path, model=PICTURES)) as twins:
        twins.learn(given, {4, 6})
        twins.forget({"seqs": [4, 6]})
        assert latest(twins.seen).sha256 == latest(twins.never).sha256
        assert set(twins.seen.features.fetch(range(1, 13))) == set(range(1, 13)) - {4, 6}


def test_forgetting_what_was_held_out_changes_no_weights(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path, gate=GateSettings(holdout=0.3))) as workshop:
        seqs = learn(workshop, batches([20] * 8))
        held = [seq for seq in seqs if status(workshop, seq) == "holdout"]
        assert held
        before = latest(workshop)
        act(workshop, "forget", {"seqs": held[:1]})
        workshop.learn()
        assert latest(workshop).sha256 == before.sha256
        assert held[0] not in [seq for seq, _ in json.loads(workshop.checkpoints.gate() or b"")["holdout"]]


def test_an_act_that_ends_the_learner_each_time_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3]))
        seq = act(workshop, "rollback", {"to": 0, "reapply": False})
        monkeypatch.setattr("service.learner.rebuild", interrupted)
        for _ in range(3):
            learner = workshop.learner()
            learner.blame_predecessor("killed by SIGKILL")
            with pytest.raises(KeyboardInterrupt):
                learner.step()
        learner = workshop.learner()
        learner.blame_predecessor("killed by SIGKILL")
        learner._commits.finish()
        told = fate_of(workshop.log, workshop.checkpoints, workshop.log.fetch([seq])[seq])
        assert (told.status, told.reason) == ("quarantined", "the learner died: killed by SIGKILL")


def test_items_that_are_taken_again_in_other_batches_leave_the_bits_of_the_line_that_was_left(tmp_path: Path) -> None:
    """What a frozen encoder says of a picture does not depend on those that were taken with it."""
    with closing(Workshop(tmp_path, keep=2, update_items=8, model=PICTURES)) as workshop:
        rng = np.random.default_rng(0)
        learn(workshop, [[(draw(LOOKS[number % 6], rng, 32), str(number % 6))] for number in range(12)])
        left = latest(workshop).version
        act(workshop, "rollback", {"to": 0, "reapply": True})  # in two batches now
        workshop.learn()
        act(workshop, "rollback", {"to": left, "reapply": False})
        workshop.learn()
        rows = [workshop.checkpoints.get(number) for number in range(1, latest(workshop).version + 1)]
        assert all(row is not None and recompute(workshop.records, row).identical for row in rows)
        assert all(each.identical for each in replay(workshop.records))


def test_forgets_that_wait_are_carried_out_together_and_each_has_a_version(tmp_path: Path) -> None:
    with closing(Twins(tmp_path)) as twins:
        twins.learn(batches([3] * 5), {4, 8, 11})
        workshop = twins.seen
        seqs = [act(workshop, "forget", {"seqs": [seq]}) for seq in (8, 4, 11)]
        run(learner := workshop.learner())
        assert [status(workshop, seq) for seq in (*seqs, 4, 8, 11)] == ["applied"] * 3 + ["forgotten"] * 3
        rows = workshop.checkpoints.following(5, 99)
        assert [row.act for row in rows if row.reason == "forget"] == seqs
        assert len(rows) == 4 + 3, "what came after the earliest item is made anew once"
        assert latest(workshop).sha256 == latest(twins.never).sha256
        assert all(each.identical is not False for each in replay(workshop.records))
        assert not learner.step()


def test_of_forgets_that_fail_together_the_one_that_can_not_be_done_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 4))
        seqs = [act(workshop, "forget", {"seqs": [seq]}) for seq in (4, 8, 11)]
        begin = Forgetting.__init__

        def failing(self: Forgetting, records: Any, given: Any, served: Version) -> None:
            if 8 in given:
                raise MemoryError
            begin(self, records, given, served)

        monkeypatch.setattr(Forgetting, "__init__", failing)
        workshop.learn()
        assert [status(workshop, seq) for seq in seqs] == ["applied", "quarantined", "applied"]
        assert [status(workshop, seq) for seq in (4, 8, 11)] == ["forgotten", "applied", "forgotten"]


def test_a_forgetting_that_ends_the_learner_each_time_is_refused_and_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 4))
        seqs = [act(workshop, "forget", {"seqs": [seq]}) for seq in (4, 8)]
        begin = Forgetting.__init__

        def deadly(self: Forgetting, records: Any, given: Any, served: Version) -> None:
            if 8 in given:
                raise KeyboardInterrupt
            begin(self, records, given, served)

        monkeypatch.setattr(Forgetting, "__init__", deadly)
        for _ in range(2 * MOST_DEATHS):
            with pytest.raises(KeyboardInterrupt):
                run(workshop.learner(), died="killed by SIGKILL")
        late = append(workshop, batches([3], seed=9)[0])
        run(workshop.learner(), died="killed by SIGKILL")
        told = fate_of(workshop.log, workshop.checkpoints, workshop.log.fetch([seqs[1]])[seqs[1]])
        assert (told.status, told.reason) == ("quarantined", "the learner died of it 8 times, last: killed by SIGKILL")
        assert [status(workshop, seq) for seq in (4, 8, *late)] == ["forgotten", *["applied"] * 4]


def test_a_forgetting_alone_that_ends_the_learner_each_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No version is past the act: each learner reads it anew."""
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 2))
        seq = act(workshop, "forget", {"seqs": [4]})

        def deadly(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Forgetting, "__init__", deadly)
        for _ in range(MOST_DEATHS):
            with pytest.raises(KeyboardInterrupt):
                run(workshop.learner(), died="killed by SIGKILL")
        run(workshop.learner(), died="killed by SIGKILL")
        assert [status(workshop, each) for each in (seq, 4)] == ["quarantined", "applied"]


def test_a_refusal_that_the_disk_fails_at_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version is past the act by then, so the log does not give it again."""
    with closing(Workshop(tmp_path)) as workshop:
        learn(workshop, batches([3] * 2))
        seq = act(workshop, "forget", {"seqs": [4]})
        monkeypatch.setattr(Forgetting, "advance", lambda *_: False)
        learner = workshop.learner()
        for _ in range(2):  # reads it, begins it
            assert learner.step()
        append(workshop, batches([3], seed=9)[0])
        assert learner.step()
        learner._commits.finish()
        assert latest(workshop).applied_seq > seq

        def impossible(*_: object) -> bool:
            raise MemoryError

        monkeypatch.setattr(Forgetting, "advance", impossible)
        monkeypatch.setattr(workshop.checkpoints, "commit", failing_once(workshop.checkpoints.commit))
        run(learner)
        assert status(workshop, seq) == "quarantined"
