"""A peer as its users run it, on the server's core; it rests, stopped, while another side is measured."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.load import JSON, Answered, closed
from benchmarks.peers.environment import Unavailable
from benchmarks.peers.field import INSTANCES, Peer
from benchmarks.peers.mlp import Digits
from benchmarks.servers import LOAD, SERVER
from tests.warm import ROOT

PATIENCE = 120.0
WAKING = 0.5  # seconds in which timers that came due while it rested are done with


@dataclass(frozen=True)
class RunningPeer:
    """A peer that answers, with the session of processes that it is."""

    peer: Peer
    url: str
    leader: int

    def answered(self, connections: int, seconds: float) -> Answered:
        """Measure it, awake; then let it rest."""
        self.signal(signal.SIGCONT)
        time.sleep(WAKING)
        figures = closed(self.url, self.peer.body, connections=connections, seconds=seconds, core=LOAD)
        self.signal(signal.SIGSTOP)
        return figures

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to each of its processes."""
        for pid in _members(self.leader):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def running(peer: Peer, python: Path, settings: Mapping[str, str]) -> Iterator[RunningPeer]:
    """Start a peer, check its answer, and let it rest until it is measured; in the end, end all its processes."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        port = _free_port()
        environment = {
            **os.environ,
            "PORT": str(port),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HOME": folder,
            "TMPDIR": folder,
            **settings,
        }
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["taskset", "-c", str(SERVER), str(python), "-m", f"benchmarks.peers.{peer.module}"],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = RunningPeer(peer, f"http://127.0.0.1:{port}{peer.path}", process.pid)
        try:
            _wait(started, process, log)
            started.signal(signal.SIGSTOP)
            yield started
        finally:
            started.signal(signal.SIGSTOP)  # so that none starts another meanwhile
            started.signal(signal.SIGKILL)
            process.wait()


def _wait(started: RunningPeer, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the first answer, and check it."""
    deadline, got = time.monotonic() + PATIENCE, "nothing"
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            answer = httpx.post(started.url, content=started.peer.body, headers={"Content-Type": JSON}, timeout=PATIENCE)
            if answer.is_success:
                return _check(started.peer, answer)
            got = f"{answer.status_code} {answer.text}"
        time.sleep(0.1)
    raise Unavailable(f"it answers {got[:200]}; its log ends with: {log.read_text()[-500:]}")


def _check(peer: Peer, answer: httpx.Response) -> None:
    """Compare an answer with the model's own."""
    (expected,) = Digits().answers(INSTANCES)
    got = peer.scores(answer.json())
    same = got.keys() == expected["scores"].keys() and all(
        math.isclose(got[label], score, rel_tol=1e-4) for label, score in expected["scores"].items()
    )
    assert same, f"{peer.name} answers {answer.text} instead of {expected}"


def _members(leader: int) -> set[int]:
    """Return a session's processes, and those that they have started in other sessions."""
    parents, sessions = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has just ended
                _, parent, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                parents[int(folder.name)], sessions[int(folder.name)] = int(parent), int(session)
    members = {pid for pid, session in sessions.items() if session == leader}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
