"""The servers that are measured, each on a core of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sklearn.datasets import load_digits

from tests.running import ROOT, RunningService, wait_for

MLP = """
[model.input]
kind = "vector"
length = 64
[model.encoder]
name = "tabular"
bins = 0
hidden = [128]
[model.head]
name = "classification"
experts = ["linear"]
"""
SERVER, LOAD = 0, 1  # cores


@contextmanager
def learned(config: str = MLP, *flags: str) -> Iterator[RunningService]:
    """Run everlearn with a model that has learned 1,000 digits, its processes on the server's core."""
    pictures, labels = load_digits(return_X_y=True)
    items = [{"instance": x.tolist(), "label": str(y)} for x, y in zip(pictures, labels, strict=True)][:1000]
    with tempfile.TemporaryDirectory() as folder, RunningService(Path(folder), config, *flags, warm=False) as service:
        with service.client() as client:
            client.post("/feedback", json={"feedback": items}, headers={"Prefer": "wait=30"}).raise_for_status()
        for pid in [*service.pids("worker"), *service.pids("learner")]:
            pin(pid, SERVER)
        yield service


@contextmanager
def bare(*flags: str) -> Iterator[str]:
    """Run the bare server on the server's core; give its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.bare", str(port), *flags]
    process = subprocess.Popen(["taskset", "-c", str(SERVER), *command], cwd=ROOT)
    try:
        wait_for(lambda: _answers(url), "the bare server")
        yield url
    finally:
        process.terminate()
        process.wait()


def pin(pid: int, core: int) -> None:
    """Keep every thread of a process on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


def question(instances: int = 1) -> bytes:
    """Return a request's body: the first digits."""
    pictures, _ = load_digits(return_X_y=True)
    return json.dumps({"instances": pictures[:instances].tolist(), "top_k": 3}).encode()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 404
    except httpx.TransportError:
        return False
