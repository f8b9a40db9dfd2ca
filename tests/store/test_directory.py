from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.store import DataDirectoryError
from service.store.embedded import DataDirectory
from service.store.embedded.directory import FORMAT, write_durably
from tests.running import ROOT


def test_a_new_directory_is_made_and_can_be_opened(tmp_path: Path) -> None:
    made = DataDirectory(tmp_path / "a" / "b").create()
    assert made.checkpoints.is_dir()
    for use in (made.open, made.create):
        assert use().root == tmp_path / "a" / "b"


@pytest.mark.parametrize("format", [0, 1, 3, FORMAT + 1, str(FORMAT), True, None])
def test_an_unknown_format_is_refused_never_guessed_at(tmp_path: Path, format: object) -> None:
    DataDirectory(tmp_path / "data").create()
    (tmp_path / "data" / "everlearn.json").write_text(json.dumps({"format": format}))
    for use in (DataDirectory(tmp_path / "data").open, DataDirectory(tmp_path / "data").create):
        with pytest.raises(DataDirectoryError, match=f"this everlearn reads format {FORMAT} only"):
            use()


def test_a_marker_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data").create()
    (tmp_path / "data" / "everlearn.json").write_text("{")
    with pytest.raises(DataDirectoryError, match="can't be read"):
        DataDirectory(tmp_path / "data").open()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataDirectoryError, match="not empty and not an everlearn data directory"):
        DataDirectory(tmp_path).create()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataDirectoryError, match="can't be written"):
        DataDirectory(tmp_path / "data").create()


def test_a_durable_write_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", b"old")
    write_durably(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"new")]


def test_a_durable_write_that_fails_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", b"old")
    script = f"""
import resource, signal, pathlib
from service.store import StoreUnavailable
from service.store.embedded.directory import write_durably
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_durably(pathlib.Path({str(tmp_path / "file")!r}), b"x" * 5000)
except StoreUnavailable as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "can't be written" in done.stdout
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_directory_knows_whether_there_ever_was_a_version(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data").create()
    assert not directory.begun()
    directory.begin()
    directory.begin()
    assert DataDirectory(tmp_path / "data").create().begun()


@pytest.mark.parametrize(("files", "begun"), [(3, False), (4, True)])
def test_of_an_earlier_format_the_files_say_whether_there_was_a_version(tmp_path: Path, files: int, begun: bool) -> None:
    directory = DataDirectory(tmp_path / "data").create()
    for number in range(files):
        directory.checkpoint(str(number)).touch()
    directory.marker.write_text('{"format": 5}')
    assert DataDirectory(tmp_path / "data").create().begun() is begun
