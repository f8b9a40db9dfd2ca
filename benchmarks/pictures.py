"""ResNet-18 on photos of 500x375 over HTTP, beside a bare loop of the forward alone, on tensors that are ready.

    python -m benchmarks.pictures [--rounds N] [--pictures N]

Both compute with one thread, and the bare loop in the memory layout that is the faster one. What it leaves out, everlearn does
beside the forward: it decodes and scales the pictures, and journals them. That is measured twice: on the core that computes,
and on the one that the load generator leaves idle. Photos come sixteen a request as JSON, and one a request on 32 connections.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from functools import partial
from urllib.parse import urlsplit

import torch
import torchvision

from benchmarks.load import exchange, request_of
from benchmarks.photos import RESNET, encoded, labelled, photos
from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import LOAD, SERVER, learned, pin
from models.inputs import Picture
from tests.running import RunningService

BATCH = 16
GOAL = 0.95


def together(count: int) -> list[bytes]:
    """Return requests of a batch of photos each."""
    instances = [{"b64": encoded(photo)} for photo in photos(BATCH)]
    return [request_of("/predict", json.dumps({"instances": instances, "top_k": 3}).encode())] * (count // BATCH)


def alone(count: int) -> list[bytes]:
    """Return requests of one photo each, which is the body."""
    several = [request_of("/predict?top_k=3", photo, "image/jpeg") for photo in photos(BATCH)]
    return several * (count // BATCH)


def served(service: RunningService, cores: tuple[int, ...], requests: list[bytes], connections: int, count: int) -> float:
    """Send requests, the next one as soon as a connection is free; return pictures a second."""
    os.sched_setaffinity(0, {LOAD})
    for pid in service.pids("worker"):
        pin(pid, *cores)
    begun = time.perf_counter()
    asyncio.run(_send(service.url, deque(requests), connections))
    return count / (time.perf_counter() - begun)


async def _send(url: str, requests: deque[bytes], connections: int) -> None:
    address = urlsplit(url)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while requests:
            await exchange(reader, writer, requests.popleft())
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))


def looped(count: int) -> float:
    """Compute batches that are ready, as fast as it goes; return pictures a second."""
    os.sched_setaffinity(0, {SERVER})
    layout = torch.channels_last
    model = torchvision.models.resnet18(weights=None, num_classes=10).eval().to(memory_format=layout)
    batch = torch.rand(BATCH, 3, 224, 224).to(memory_format=layout)
    with torch.inference_mode():
        model(batch)
        begun = time.perf_counter()
        for _ in range(count // BATCH):
            model(batch)
        return count / (time.perf_counter() - begun)


def decoding(format: str) -> float:
    """Return the milliseconds that decoding and scaling a photo takes."""
    kind, pictures = Picture(size=224), photos(BATCH, format)
    begun = time.perf_counter()
    for picture in 4 * pictures:
        kind.prepare(picture)
    return (time.perf_counter() - begun) * 1000 / (4 * BATCH)


def main() -> None:
    given = options(__doc__, rounds=3, pictures=256)
    torch.set_num_threads(1)
    sides = {"in batches": (together(given.pictures), 2), "one by one": (alone(given.pictures), 32)}
    places = {"decoded on the same core": (SERVER,), "decoded on the other core": (SERVER, LOAD)}
    with learned(RESNET, items=labelled(20)) as service:
        measured = {
            f"{side}, {place}": partial(served, service, cores, requests, connections, given.pictures)
            for side, (requests, connections) in sides.items()
            for place, cores in places.items()
        }
        rounds = interleaved({**measured, "bare loop": partial(looped, given.pictures)}, given.rounds)
    rates = rounds.medians(float)
    jpeg, png = decoding("JPEG"), decoding("PNG")
    for side in measured:
        ratio = rounds.ratio(side, "bare loop", float)
        said = (
            f"{rates[side]:.1f} pictures/s, bare loop {rates['bare loop']:.1f}/s at batch {BATCH}, one thread each;"
            f" decoding a photo takes {jpeg:.1f} ms from JPEG and {png:.1f} ms from PNG,"
            f" the forward {1000 / rates['bare loop']:.1f} ms"
        )
        figure = f"ResNet-18, pictures/s, {side}"
        Row(4, figure, "bare torch loop", f"at least {GOAL}x", f"{ratio}", ratio.median >= GOAL, said).write()
        print(said)


if __name__ == "__main__":
    main()
