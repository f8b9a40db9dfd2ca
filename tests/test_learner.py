from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.checkpointing import ShapingDiffers
from service.demo.pictures import LOOKS, draw
from service.replay import ReplayImpossible, replay
from service.store import NewEntry
from tests.workshop import PICTURES, Workshop


def spans(workshop: Workshop) -> list[tuple[int, int]]:
    return [(row.first_seq, row.last_seq) for row in workshop.checkpoints.following(0, 1000)]


def test_a_learner_begins_with_version_0_of_the_initial_weights(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        workshop.learner()
        latest = workshop.checkpoints.latest()
        assert latest
        assert (latest.version, latest.parent, latest.last_seq, latest.reason) == (0, None, 0, "initial")


def test_one_update_takes_everything_that_waits_up_to_its_limit(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path, update_items=4)) as workshop:
        workshop.send(10)
        workshop.learn()
        assert spans(workshop) == [(1, 4), (5, 8), (9, 10)]


def test_a_new_learner_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        workshop.send(6)
        workshop.learn()
        workshop.send(3)
        workshop.learn()
        assert spans(workshop) == [(1, 4), (5, 6), (7, 9)]


def test_restarts_between_updates_do_not_change_a_bit(tmp_path: Path) -> None:
    hashes = []
    for name, restarts in (("whole", False), ("restarted", True)):
        with closing(Workshop(tmp_path / name)) as workshop:
            workshop.send(20)
            learner = workshop.learner()
            while learner.step():
                if restarts:
                    learner._commits.finish()
                    learner = workshop.learner()
            hashes.append([row.sha256 for row in workshop.checkpoints.following(-1, 100)])
    assert hashes[0] == hashes[1]


def test_a_label_that_can_not_be_admitted_is_quarantined_at_once_and_the_rest_is_learned(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path, update_items=8)) as workshop:
        workshop.shaping["model"]["head"]["max_classes"] = 2
        workshop.send(5)
        workshop.send(1, label="one too many")
        workshop.send(5)
        workshop.learn()
        quarantined = {}
        for row in workshop.checkpoints.following(0, 100):
            quarantined |= row.quarantined
        assert quarantined == {6: "LabelError: class 'one too many' would be one more than max_classes = 2"}
        assert spans(workshop)[-1][1] == 11


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        workshop.learner()
        workshop.shaping["learning"]["seed"] = 5
        workshop.shaping["model"]["encoder"]["hidden"] = [9]
        with pytest.raises(ShapingDiffers) as raised:
            workshop.learner()
    assert "learning.seed was 0 and is now 5" in str(raised.value)
    assert "model.encoder.hidden was [4] and is now [9]" in str(raised.value)


def test_replay_recomputes_every_version_also_those_without_a_checkpoint(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path, keep=2)) as workshop:
        workshop.send(30)
        workshop.learn()
        assert [row.version for row in workshop.checkpoints.following(-1, 100) if row.stored] == [0, 4, 6, 7, 8]
        replayed = list(replay(workshop.records))
        assert [each.version.version for each in replayed] == list(range(1, 9))
        assert all(each.identical for each in replayed)


def test_replay_can_start_from_any_stored_version(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        workshop.send(30)
        workshop.learn()
        replayed = list(replay(workshop.records, after=5))
        assert [(each.version.version, each.identical) for each in replayed] == [(6, True), (7, True), (8, True)]


def test_replay_finds_an_entry_that_was_changed_or_taken_out(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        workshop.send(12)
        workshop.learn()
        with workshop.log._database.write() as connection:
            connection.execute("UPDATE feedback SET crc = NULL, label = '\"b\"' WHERE seq = 7")
        replayed = list(replay(workshop.records))
        assert [each.identical for each in replayed] == [True, False, False]
        with workshop.log._database.write() as connection:
            connection.execute("DELETE FROM feedback WHERE seq = 7")
        with pytest.raises(ReplayImpossible, match="version 2 learned from seq 7"):
            list(replay(workshop.records))


def send_pictures(workshop: Workshop, count: int) -> None:
    rng = np.random.default_rng(0)
    pictures = [draw(LOOKS[number % 6], rng, 32) for number in range(count)]
    entries = [NewEntry(instance=picture, label=f'"{number % 6}"', digest=b"") for number, picture in enumerate(pictures)]
    workshop.log.append(entries).result(10)


def test_what_a_frozen_encoder_says_is_worked_out_once_and_outlives_a_restart(tmp_path: Path) -> None:
    """Half is learned in one run, half in the next; a run that never stopped ends in the same bits, and so does replay."""
    workshop, twin = (Workshop(tmp_path / name, update_items=3, model=PICTURES) for name in ("stopped", "whole"))
    with closing(workshop), closing(twin):
        for each in (workshop, twin):
            send_pictures(each, 18)
        learner = workshop.learner()
        for _ in range(3):
            learner.step()
        learner.stop()
        learner.run()  # it leaves with what is under way committed
        workshop.learn()
        twin.learn()
        assert len(workshop.features.fetch(range(1, 19))) == 18
        assert workshop.features.fetch([5, 14]) == twin.features.fetch([5, 14])
        ends = [each.checkpoints.latest() for each in (workshop, twin)]
        assert ends[0] is not None
        assert ends[1] is not None
        assert ends[0].sha256 == ends[1].sha256
        for after in (0, 4):
            replayed = list(replay(workshop.records, after=after))
            assert len(replayed) == 6 - after
            assert all(each.identical for each in replayed)


def test_features_that_are_lost_are_worked_out_again_to_the_same_bits(tmp_path: Path) -> None:
    workshop, twin = (Workshop(tmp_path / name, update_items=3, model=PICTURES) for name in ("lost", "kept"))
    with closing(workshop), closing(twin):
        for each in (workshop, twin):
            send_pictures(each, 12)
            each.learn()
        with workshop.features._database.write() as connection:
            connection.execute("DELETE FROM features")
        for each in (workshop, twin):
            send_pictures(each, 12)
            each.learn()
        ends = [each.checkpoints.latest() for each in (workshop, twin)]
        assert None not in ends
        assert len({end.sha256 for end in ends if end is not None}) == 1
        assert all(each.identical for each in replay(workshop.records))
