"""A virtual environment for each peer, made at its first use and again when its requirements change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.peers.field import Peer
from benchmarks.rounds import RESULTS


class Unavailable(Exception):
    """A peer can not be installed or started here."""


def interpreter(peer: Peer) -> Path:
    """Return the Python of a peer's environment, with the peer in it."""
    folder = RESULTS / "venvs" / peer.module
    python, marker = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(peer.requirements)
    if not marker.exists() or marker.read_text() != wanted:
        print(f"installing {peer.name}: {', '.join(peer.requirements)}", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements)
        marker.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command[1:4])} failed: {done.stderr.strip()[-500:]}")
