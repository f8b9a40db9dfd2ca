from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from service.store import NewEntry
from service.store.embedded import DataDirectory, EmbeddedFeedbackLog, fork
from tests.running import ROOT

SCRIPT = """
import sys, pathlib
from service.store import NewEntry
from service.store.embedded import DataDirectory, EmbeddedFeedbackLog
log = EmbeddedFeedbackLog(DataDirectory(pathlib.Path(sys.argv[1])).open())
for number in range(50):
    key = f"shared-{number}"
    log.append([NewEntry(instance=b"x", label="1", digest=b"d", key=key)]).result()
    log.append([NewEntry(instance=b"x", label="1", digest=b"d", key=f"{sys.argv[2]}-{number}")]).result()
log.close()
"""
FULL = """
import resource, signal, sys, pathlib
from service.store import NewEntry, StoreUnavailable
from service.store.embedded import DataDirectory, EmbeddedFeedbackLog, fork
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = EmbeddedFeedbackLog(DataDirectory(pathlib.Path(sys.argv[1])).create())
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
taken, refused = 0, 0
for number in range(60):
    try:
        log.append([NewEntry(instance=b"x" * 4000, label=str(number), digest=b"")] * 2).result()
        taken += 1
    except StoreUnavailable:
        refused += 1
print(taken, refused, len(log.read(0, 1000)))
"""


def test_processes_that_append_at_once_share_one_order_and_one_entry_per_key(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data").create()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "data")]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with closing(EmbeddedFeedbackLog(DataDirectory(tmp_path / "data").open())) as log:
        keys = [entry.key for entry in log.read(0, 10_000)]
    assert len(keys) == len(set(keys)) == 50 + 3 * 50


def test_a_full_disk_refuses_whole_appends_and_keeps_what_it_took(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "data")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    taken, refused, found = map(int, done.stdout.split())
    assert taken > 5
    assert refused > 5
    assert found == 2 * taken
    with closing(EmbeddedFeedbackLog(DataDirectory(tmp_path / "data").open())) as log:
        assert len(log.read(0, 1000)) == found
        assert log.append([NewEntry(instance=b"x", label="1", digest=b"")]).result(10)


def test_a_read_is_bounded_in_bytes_and_still_goes_on(tmp_path: Path) -> None:
    with closing(EmbeddedFeedbackLog(DataDirectory(tmp_path / "data").create())) as log:
        large = NewEntry(instance=bytes(30_000_000), label="1", digest=b"")
        log.append([large] * 4).result(30)
        assert [entry.seq for entry in log.read(0, 100)] == [1, 2, 3]
        assert [entry.seq for entry in log.read(3, 100)] == [4]


def filled(folder: Path) -> DataDirectory:
    directory = DataDirectory(folder).create()
    log = EmbeddedFeedbackLog(directory)
    join: dict[str, Any] = {"prediction_id": "p", "predicted_by": 3, "answer": "{}"}
    log.append([NewEntry(instance=b"x" * 5000, label=str(n), digest=b"d", key=f"k{n}", **join) for n in range(100)]).result(10)
    log.close()
    return directory


def test_a_fork_has_the_feedback_and_nothing_of_what_was_learned_from_it(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    assert fork(tmp_path / "old", tmp_path / "new") == 100
    old, new = (EmbeddedFeedbackLog(DataDirectory(tmp_path / name).open()) for name in ("old", "new"))
    copied, original = new.read(0, 1000), old.read(0, 1000)
    assert [(e.seq, e.instance, e.label, e.key) for e in copied] == [(e.seq, e.instance, e.label, e.key) for e in original]
    assert {(entry.answer, entry.predicted_by) for entry in copied} == {(None, None)}
    for log in (old, new):
        log.close()


def test_a_fork_that_fails_leaves_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    script = f"""
import resource, signal, pathlib
from service.store import StoreUnavailable
from service.store.embedded import fork
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    fork(pathlib.Path({str(tmp_path / "old")!r}), pathlib.Path({str(tmp_path / "new")!r}))
except StoreUnavailable as exc:
    print("unavailable")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unavailable"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
