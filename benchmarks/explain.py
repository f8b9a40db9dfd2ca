"""What explanations take: their time, their error, and what they cost those who predict meanwhile.

The API worker has core 0, where explanations compete with predictions; the clients have core 1. Rounds alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.load import exchange, request_of
from benchmarks.servers import pin
from models.explanation import explain
from models.registry import build_model
from service.demo.reviews import reviews
from service.learning.update import Item, LearningState
from service.settings import ExplanationSettings, LearningSettings
from service.templates import render
from tests.running import DIGITS, RunningService, learn

INSTANCES = 200
ROUNDS = 5
SECONDS = 6.0
WARM_UP = 1.0  # of these
ASKED = 50  # explanations whose time is taken, fewer of large pictures

FIELDS: dict[str, str] = {f"number {n}": "number" for n in range(8)} | {f"word {n}": "string" for n in range(4)}


def _digits() -> tuple[list[list[float]], list[str]]:
    pictures, labels = load_digits(return_X_y=True)
    return pictures.tolist(), [str(label) for label in labels]


def _records() -> tuple[list[dict[str, Any]], list[str]]:
    pictures, labels = _digits()
    rows = [
        {name: (row[20 + n] if kind == "number" else f"{row[20 + n]:.0f}") for n, (name, kind) in enumerate(FIELDS.items())}
        for row in pictures
    ]
    return rows, labels


def _texts() -> tuple[list[str], list[str]]:
    texts, labels = zip(*islice(reviews(np.random.default_rng(0)), 1000), strict=True)
    return list(texts), list(labels)


def _pictures(side: int) -> tuple[list[dict[str, str]], list[str]]:
    pictures, labels = _digits()
    return [{"b64": base64.b64encode(_png(row, side)).decode()} for row in pictures[:400]], labels[:400]


def _png(row: Sequence[float], side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array(row, dtype=np.uint8).reshape(8, 8) * 15).resize((side, side)).save(file, "PNG")
    return file.getvalue()


def _image(size: int, extra: str = "") -> str:
    return f"""
[model.input]
kind = "image"
size = {size}
[model.encoder]
name = "torchvision"
backbone = "resnet18"
weights = "none"
train = "all"
[model.head]
name = "classification"
experts = ["linear"]
{extra}"""


RECORD = f"""
[model.input]
kind = "record"
fields = {{{", ".join(f'"{name}" = "{kind}"' for name, kind in FIELDS.items())}}}
[model.encoder]
name = "tabular"
[model.head]
name = "classification"
"""

KINDS: dict[str, tuple[str, Callable[[], tuple[list[Any], list[str]]], int, int]] = {
    "vector of 64": (DIGITS, _digits, 500, ASKED),
    "record of 12": (RECORD, _records, 500, ASKED),
    "text of 8 to 12 tokens": (render("text"), _texts, 500, ASKED),
    "picture 32x32, ResNet-18": (_image(32), lambda: _pictures(32), 32, 10),
    "picture 224x224, ResNet-18": (_image(224), lambda: _pictures(224), 8, 2),
    "the same, evaluations = 98": (_image(224, "[explanations]\nevaluations = 98\n"), lambda: _pictures(224), 8, 3),
}


def _latency() -> None:
    """Print how long /explain takes, one request after the other, nothing beside it."""
    for name, (config, make, learned, asked) in KINDS.items():
        instances, labels = make()
        with tempfile.TemporaryDirectory() as folder, RunningService(Path(folder), config) as service:
            with service.client() as client:
                learn(client, list(zip(instances[:learned], labels[:learned], strict=True)))
            with httpx.Client(base_url=service.url, timeout=600) as client:
                first, found = _timed(client, instances[0])
                seconds = [_timed(client, instance)[0] for instance in instances[1 : 1 + asked]]
        told = f"{found['method']}, {found['evaluations']} evaluations"
        p50, p95 = np.percentile(seconds, [50, 95])
        print(f"{name:28} p50 {p50 * 1000:7.0f} ms   p95 {p95 * 1000:7.0f} ms   the first {first * 1000:6.0f} ms   ({told})")


def _timed(client: httpx.Client, instance: Any) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    answer = client.post("/explain", json={"instance": instance}).raise_for_status()
    return time.perf_counter() - began, answer.json()


def _completeness() -> None:
    """Print by how much the attributions miss the difference that they have to add up to."""
    settings = ExplanationSettings()
    vector = {"kind": "vector", "length": 64}
    tabular, head = {"name": "tabular"}, {"name": "classification"}
    counts = {**head, "experts": ["linear", "bayes"]}
    kinds: dict[str, tuple[dict[str, Any], tuple[list[Any], list[str]], int]] = {
        "vector": ({"input": vector, "encoder": tabular, "head": head}, _digits(), settings.evaluations),
        "record": ({"input": {"kind": "record", "fields": FIELDS}, "encoder": tabular, "head": head}, _records(), 512),
        "text": ({"input": {"kind": "text"}, "encoder": {"name": "text"}, "head": counts}, _texts(), 512),
        "image": (
            {
                "input": {"kind": "image", "size": 32},
                "encoder": {"name": "torchvision", "weights": "none", "train": "all"},
                "head": head,
            },
            ([_png(row, 32) for row in _digits()[0][:INSTANCES]], _digits()[1]),
            98,
        ),
    }
    for name, (specification, (instances, labels), evaluations) in kinds.items():
        state = LearningState(build_model(specification), LearningSettings(warm_up=0, step_items=16))
        prepare = state.model.input.prepare
        items = {seq: Item(prepare(instances[seq - 1]), labels[seq - 1]) for seq in range(1, INSTANCES + 1)}
        state.update(state.plan(list(items), items), items)
        errors, sizes = [], []
        for instance in instances[:INSTANCES]:
            found = explain(state.model, instance, evaluations=evaluations, batch=settings.batch).attributions
            errors.append(abs(found.base + found.values.sum().item() - found.explained))
            sizes.append(abs(found.explained - found.base))
        print(f"{name:6} {INSTANCES} instances: largest error {max(errors):.1e}, median difference {np.median(sizes):.2f}")


async def ask(address: tuple[str, int], request: bytes, until: float, latencies: list[float]) -> None:
    """Send one request after the other on one connection, and keep the time of each after the warm-up."""
    reader, writer = await asyncio.open_connection(*address)
    began_at = time.perf_counter()
    while (began := time.perf_counter()) < until:
        await exchange(reader, writer, request)
        if began - began_at > WARM_UP:
            latencies.append(time.perf_counter() - began)
    writer.close()


async def measure(url: str, request: bytes, connections: int) -> list[float]:
    """Return the latencies of one round, in seconds."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    latencies: list[float] = []
    until = time.perf_counter() + SECONDS
    asks = (ask((parts.hostname, parts.port), request, until, latencies) for _ in range(connections))
    await asyncio.gather(*asks)
    return latencies


async def _round(url: str, predict: bytes, question: bytes | None, connections: int) -> tuple[list[float], int]:
    """Return the latencies of /predict in one round, and how many explanations were answered meanwhile."""
    if question is None:
        return await measure(url, predict, connections), 0
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    explained: list[float] = []
    asking = [
        asyncio.create_task(ask((address.hostname, address.port), question, time.perf_counter() + SECONDS, explained))
        for _ in range(2)
    ]
    latencies = await measure(url, predict, connections)
    await asyncio.gather(*asking)
    return latencies, len(explained)


def _interference(name: str, connections: int) -> None:
    """Print the latency of /predict with explanations asked for on two connections, and without."""
    config, make, learned, _ = KINDS[name]
    instances, labels = make()
    with tempfile.TemporaryDirectory() as folder, RunningService(Path(folder), config) as service:
        with service.client() as client:
            learn(client, list(zip(instances[:learned], labels[:learned], strict=True)))
            client.post("/explain", json={"instance": instances[0]}, timeout=600).raise_for_status()
        (worker,), (learner,) = service.pids("worker"), service.pids("learner")
        os.kill(learner, signal.SIGSTOP)
        pin(worker, 0)
        os.sched_setaffinity(0, {1})
        predict = request_of("/predict", json.dumps({"instances": [instances[0]], "top_k": 3}).encode())
        question = request_of("/explain", json.dumps({"instance": instances[1]}).encode())
        rounds: dict[str, list[list[float]]] = {"without": [], "with explanations": []}
        explanations = 0
        for _ in range(ROUNDS):
            for which, asked in (("without", None), ("with explanations", question)):
                latencies, count = asyncio.run(_round(service.url, predict, asked, connections))
                rounds[which].append(latencies)
                explanations += count
        os.kill(learner, signal.SIGCONT)
        os.sched_setaffinity(0, {0, 1})
    print(f"/predict, {name}, connections: {connections}")
    for which, each in rounds.items():
        p50, p99 = np.percentile(np.concatenate(each) * 1000, [50, 99])
        print(f"  {which:18} {sum(map(len, each)) / ROUNDS / 5:6.0f} requests/s   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms")
    p99s = {which: [np.percentile(of, 99) for of in each] for which, each in rounds.items()}
    ratios = np.divide(p99s["with explanations"], p99s["without"])
    print(f"  p99 with / without: median {np.median(ratios):.2f}, rounds {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(f"  {explanations} explanations meanwhile")


def main() -> None:
    """Run what is asked for; by default everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["completeness", "latency", "interference"])
    what = parser.parse_args().what
    if "completeness" in what:
        _completeness()
    if "latency" in what:
        _latency()
    if "interference" in what:
        for name, connections in (("vector of 64", 1), ("vector of 64", 8), ("picture 32x32, ResNet-18", 1)):
            _interference(name, connections)


if __name__ == "__main__":
    print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()}))
    main()
