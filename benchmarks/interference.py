"""What training costs those who predict: /predict at 8 connections, learner idle and learner flat out, side by side.

The API worker and this client share core 0, the learner has core 1. Rounds alternate, so that a noisy neighbour hits both.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.load import exchange, request_of
from benchmarks.servers import pin, question
from tests.running import DIGITS, RunningService

CONNECTIONS = 8
ROUNDS = 5
SECONDS = 5.0
WARM_UP = 1.0
BACKLOG = 400_000
CONFIG = DIGITS + f"\n[limits]\nbacklog = {10 * BACKLOG}\n"


async def ask(address: tuple[str, int], request: bytes, until: float, latencies: list[float]) -> None:
    """Send one request after the other on one connection, and keep the time of each after the warm-up."""
    reader, writer = await asyncio.open_connection(*address)
    began_at = time.perf_counter()
    while (began := time.perf_counter()) < until:
        await exchange(reader, writer, request)
        if began - began_at > WARM_UP:
            latencies.append(time.perf_counter() - began)
    writer.close()


async def measure(url: str, request: bytes, connections: int = CONNECTIONS) -> list[float]:
    """Return the latencies of one round, in seconds."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    latencies: list[float] = []
    until = time.perf_counter() + WARM_UP + SECONDS
    asks = (ask((parts.hostname, parts.port), request, until, latencies) for _ in range(connections))
    await asyncio.gather(*asks)
    return latencies


def main() -> None:
    """Run the rounds and print latencies and their ratio."""
    pictures, labels = load_digits(return_X_y=True)
    with tempfile.TemporaryDirectory() as folder, RunningService(Path(folder), CONFIG) as service, service.client() as client:
        (worker,), (learner,) = service.pids("worker"), service.pids("learner")
        items = [{"instance": x.tolist(), "label": str(y)} for x, y in zip(pictures, labels, strict=True)][:1000]
        client.post("/feedback", json={"feedback": items}, headers={"Prefer": "wait=30"}).raise_for_status()
        os.kill(learner, signal.SIGSTOP)
        for _ in range(BACKLOG // len(items)):
            client.post("/feedback", json={"feedback": items}).raise_for_status()
        pin(worker, 0)
        pin(learner, 1)
        os.sched_setaffinity(0, {0})
        rounds: dict[str, list[list[float]]] = {"learner idle": [], "learner flat out": []}
        learned_from = client.get("/model").json()["applied_seq"]
        for _ in range(ROUNDS):
            for name, number in (("learner idle", signal.SIGSTOP), ("learner flat out", signal.SIGCONT)):
                os.kill(learner, number)
                rounds[name].append(asyncio.run(measure(service.url, request_of("/predict", question()))))
        model = client.get("/model").json()
        assert model["lag"] > 0, "the learner ran out of feedback: raise BACKLOG"
        os.kill(learner, signal.SIGKILL)
    busy_seconds = ROUNDS * (SECONDS + WARM_UP)
    figures = {name: np.concatenate(of) * 1000 for name, of in rounds.items()}
    for name, milliseconds in figures.items():
        p50, p99 = np.percentile(milliseconds, [50, 99])
        print(f"{name:17} {len(milliseconds) / ROUNDS / SECONDS:7.0f} requests/s   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")
    p99 = {name: [np.percentile(of, 99) for of in each] for name, each in rounds.items()}
    ratios = np.divide(p99["learner flat out"], p99["learner idle"])
    print(f"p99 flat out / idle: median {np.median(ratios):.2f}, rounds {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    learned = model["applied_seq"] - learned_from
    print(f"the learner took {learned / busy_seconds:.0f} items/s in {model['model_version']} versions meanwhile")


if __name__ == "__main__":
    main()
