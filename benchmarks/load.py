"""Load: closed-loop by wrk (as many requests as a server can answer), open-loop at a constant rate (what waiting costs)."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop

SCRIPT = Path(__file__).with_name("wrk.lua")
JSON = "application/json"


@dataclass(frozen=True)
class Answered:
    """What a load saw: requests a second, and latencies in milliseconds."""

    rate: float
    p50: float
    p90: float
    p99: float
    p999: float


def closed(url: str, body: bytes, *, connections: int, seconds: float, core: int, media_type: str = JSON) -> Answered:
    """Send one request after the other on each connection, by wrk on a core of its own. Every answer must be a success."""
    program = shutil.which("wrk")
    assert program, "wrk is missing: apt-get install wrk"
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["taskset", "-c", str(core), program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
        environment = {**os.environ, "BODY": file.name, "TYPE": media_type}
        done = subprocess.run(
            [*command, "-s", str(SCRIPT), url], env=environment, capture_output=True, text=True, check=True
        ).stdout
    figures = json.loads(done.strip().rpartition("\n")[2])
    assert figures["failed"] == 0, done
    microseconds = {name: figures[name] / 1000 for name in ("p50", "p90", "p99", "p999")}
    return Answered(rate=figures["requests"] / figures["seconds"], **microseconds)


def opened(url: str, body: bytes, *, rate: float, seconds: float) -> Answered:
    """Send requests at a constant rate, whatever the answers do; a latency counts from when its request was due.

    So a pause of the server shows in every request that was due in it (coordinated omission, Tene 2013).
    """
    connections = min(64, math.ceil(rate))  # each is used about once a second: servers close those that rest
    gc.freeze()  # a long collection of this process would look like a pause of the server
    latencies = np.array(uvloop.run(_opened(url, body, rate, seconds, connections))) * 1000
    p50, p90, p99, p999 = np.percentile(latencies, [50, 90, 99, 99.9]).tolist()
    return Answered(len(latencies) / seconds, p50, p90, p99, p999)


async def _opened(url: str, body: bytes, rate: float, seconds: float, connections: int) -> list[float]:
    parts = urlsplit(url)
    request = request_of(parts.path, body)
    begin = time.perf_counter() + 0.1
    due = deque(begin + number / rate for number in range(int(rate * seconds)))
    latencies: list[float] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while due:
            at = due.popleft()
            if (early := at - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            await exchange(reader, writer, request)
            latencies.append(time.perf_counter() - at)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return latencies


def request_of(path: str, body: bytes, media_type: str = JSON) -> bytes:
    """Return a whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """Send a request and read its answer, which must be a success."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
