from __future__ import annotations

import json
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from service.demo.pictures import LOOKS, draw
from service.replay import recompute
from service.store import NewEntry, StoreError
from service.verify import rebuild_version, verify_versions
from tests.damaging import flip
from tests.test_acts import act, learn
from tests.test_learner import send_pictures
from tests.workshop import PICTURES, Workshop


def learned(folder: Path, items: int = 30, keep: int = 100) -> Workshop:
    workshop = Workshop(folder, keep=keep)
    workshop.send(items)
    workshop.learn()
    return workshop


def relabel(workshop: Workshop, seq: int) -> None:
    with workshop.log._database.write() as connection:
        connection.execute("UPDATE feedback SET label = '\"b\"', crc = NULL WHERE seq = ?", (seq,))


def test_the_first_difference_is_named_with_its_files_tensors_and_feedback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(learned(tmp_path)) as workshop:
        relabel(workshop, 7)
        assert not verify_versions(workshop.directory.root)
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("everlearn: version 2 differs from its replay in the model file (encoder.layers.0.bias, ")
    assert "more), and the learner file (" in said
    assert said.endswith("; it took seq 5..8")


def test_only_the_files_are_named_of_a_version_without_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(learned(tmp_path, keep=2)) as workshop:
        relabel(workshop, 3)
        assert not verify_versions(workshop.directory.root)
    said = capsys.readouterr().err.strip()
    assert said == "everlearn: version 1 differs from its replay in the model file, and the learner file; it took seq 1..4"


def test_a_difference_in_the_row_alone_is_told_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(learned(tmp_path)) as workshop:
        with workshop.checkpoints._database.write() as connection:
            connection.execute("UPDATE versions SET sha256 = 'other', crc = NULL WHERE version = 3")
        assert not verify_versions(workshop.directory.root)
    assert "version 3 differs from its replay in its row, which names another hash" in capsys.readouterr().err


def test_where_a_version_was_made_is_told_instead_of_guessed_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(learned(tmp_path)) as workshop:
        with workshop.checkpoints._database.write() as connection:
            connection.execute("UPDATE versions SET environment = json_set(environment, '$.torch', '1.0'), crc = NULL")
        assert verify_versions(workshop.directory.root), "the same bits are the same bits, wherever they were made"
        relabel(workshop, 7)
        assert not verify_versions(workshop.directory.root)
    assert "; the environment differs: torch was 1.0 and is 2." in capsys.readouterr().err


def test_what_was_forgotten_and_left_is_counted_and_not_called_identical(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(learned(tmp_path, items=12)) as workshop:
        workshop.log.append([NewEntry(kind="forget", instance=b"", label=json.dumps({"seqs": [6]}), digest=b"")]).result(10)
        workshop.learn()
        assert verify_versions(workshop.directory.root)
    said = capsys.readouterr().err
    assert "bit-identical; 2 that the served line has left learned from what was forgotten since" in said


@pytest.mark.parametrize("number", range(9))
def test_any_version_is_made_anew_from_the_checkpoint_before_it(tmp_path: Path, number: int) -> None:
    with closing(learned(tmp_path, keep=2)) as workshop:
        version = workshop.checkpoints.get(number)
        assert version is not None
        counted: list[tuple[int, int]] = []
        replayed = recompute(workshop.records, version, passed=lambda done, of: counted.append((done, of)))
    assert replayed.identical
    steps = {0: 0, 5: 1, 6: 2, 7: 1, 8: 1}.get(number, number)  # with keep = 2, 0, 4, 6, 7 and 8 are stored
    assert counted == [(done, steps) for done in range(steps)]


def test_files_that_were_made_anew_take_the_place_of_damaged_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(learned(tmp_path)) as workshop:
        version = workshop.checkpoints.get(5)
        assert version is not None
        for part in ("model", "learner"):
            flip(workshop.directory, version.parts[part])
        assert rebuild_version(workshop.directory.root, 5, tmp_path / "out")
        said = capsys.readouterr().err
        assert f"version 5, made anew, is bit-identical to what was committed: {version.sha256}" in said
        assert {path.stem for path in (tmp_path / "out").iterdir()} == set(version.parts.values())
        for path in (tmp_path / "out").iterdir():
            path.rename(workshop.directory.checkpoints / path.name)
        assert all(workshop.checkpoints.read(sha256) for sha256 in version.parts.values())


def test_a_version_that_comes_out_otherwise_is_told_and_written_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(learned(tmp_path)) as workshop:
        relabel(workshop, 7)
        assert not rebuild_version(workshop.directory.root, 2, tmp_path / "out")
        assert "version 2 differs from its replay in the model file (" in capsys.readouterr().err
        assert len(list((tmp_path / "out").iterdir())) == 3
        flip(workshop.directory, workshop.checkpoints.get(2).parts["model"])  # type: ignore[union-attr]
        assert not rebuild_version(workshop.directory.root, 2, None)
        assert "in the model file, which is damaged, and the learner file (" in capsys.readouterr().err


def test_a_version_of_a_frozen_encoder_is_made_anew_from_what_it_said(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path, update_items=3, model=PICTURES, keep=2)) as workshop:
        send_pictures(workshop, 15)
        workshop.learn()
        for number in (1, 3, 5):
            assert rebuild_version(workshop.directory.root, number, None)


def test_a_version_that_is_not_there_is_told(tmp_path: Path) -> None:
    with closing(learned(tmp_path)) as workshop, pytest.raises(StoreError, match="no version 99: the newest is 8"):
        rebuild_version(workshop.directory.root, 99, None)


def test_what_a_frozen_encoder_said_is_worked_out_anew_where_the_line_bends(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [(draw(LOOKS[number % 6], rng, 32), str(number % 6)) for number in range(36)]
    given = [pictures[start:end] for start, end in pairwise([0, 3, 8, 20, 27, 33, 36])]
    with closing(Workshop(tmp_path, model=PICTURES, update_items=256)) as workshop:
        learn(workshop, given[:4])
        act(workshop, "rollback", {"to": 2, "reapply": True})  # one batch of what were two
        act(workshop, "rollback", {"to": 4, "reapply": False})
        learn(workshop, given[4:5])
        act(workshop, "forget", {"seqs": [5]})
        learn(workshop, given[5:])
        assert verify_versions(workshop.directory.root)
