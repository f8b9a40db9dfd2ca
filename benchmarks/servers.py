"""The servers that are measured, each on a core of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

Items = Sequence[dict[str, Any]]
"""Feedback, as a request brings it."""


def digits(count: int) -> Items:
    """Return labelled digits."""
    pictures, labels = load_digits(return_X_y=True)
    return [{"instance": x.tolist(), "label": str(y)} for x, y in zip(pictures, labels, strict=True)][:count]


@contextmanager
def learned(config: str = MLP, *flags: str, items: Items | None = None) -> Iterator[RunningService]:
    """Run everlearn with a model that has learned some items, by default 1,000 digits; all its processes on one core."""
    feedback = {"feedback": items or digits(1000)}
    with tempfile.TemporaryDirectory() as folder, RunningService(Path(folder), config, *flags, warm=False) as service:
        with service.client() as client:
            client.post("/feedback", json=feedback, headers={"Prefer": "wait=30"}).raise_for_status()
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


def pin(pid: int, *cores: int) -> None:
    """Keep every thread of a process on some cores."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)


def question(instances: int = 1) -> bytes:
    """Return a request's body: the first digits."""
    pictures, _ = load_digits(return_X_y=True)
    return json.dumps({"instances": pictures[:instances].tolist(), "top_k": 3}).encode()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 404
    except httpx.TransportError:
        return False
