from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from service.store.embedded.bell import Bell, ring
from tests.running import ROOT


def test_every_listener_of_the_name_is_woken_and_no_other(tmp_path: Path) -> None:
    one, two, other = Bell(tmp_path, "feedback"), Bell(tmp_path, "feedback"), Bell(tmp_path, "version")
    ring(tmp_path, "feedback")
    began = time.monotonic()
    one.wait(10)
    two.wait(10)
    assert time.monotonic() - began < 2
    other.wait(0.1)
    assert time.monotonic() - began >= 0.1
    for bell in (one, two, other):
        bell.close()


def test_many_rings_wake_once(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "feedback")
    for _ in range(5_000):
        ring(tmp_path, "feedback")
    bell.wait(10)
    began = time.monotonic()
    bell.wait(0.2)
    assert time.monotonic() - began >= 0.2
    bell.close()


def test_the_pipe_of_a_listener_that_died_is_removed(tmp_path: Path) -> None:
    script = (
        f"from pathlib import Path; from service.store.embedded.bell import Bell; Bell(Path({str(tmp_path)!r}), 'feedback')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    assert len(list(tmp_path.iterdir())) == 1
    ring(tmp_path, "feedback")
    assert list(tmp_path.iterdir()) == []


def test_a_ring_reaches_listeners_that_come_and_go_meanwhile_and_never_fails(tmp_path: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def come_and_go() -> None:
        while not stop.is_set():
            try:
                Bell(tmp_path, "feedback").close()
            except OSError as exc:
                failures.append(exc)

    listener = threading.Thread(target=come_and_go)
    listener.start()
    try:
        for _ in range(3_000):
            ring(tmp_path, "feedback")
    finally:
        stop.set()
        listener.join()
    assert not failures
    assert not list(tmp_path.iterdir())
