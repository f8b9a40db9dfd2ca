"""What the figures were measured on: the machine and the versions."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "pydantic",
    "orjson",
)


def machine() -> dict[str, str]:
    """Return the machine's parts, by name."""
    memory = int(re.findall(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[0]) / 2**20
    return {
        "CPU": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "disk": _disk(Path(tempfile.gettempdir())),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of what was measured with, by name."""
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split()
    return {
        "Python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "SQLite": sqlite3.sqlite_version,
        "wrk": wrk[1] if wrk else "-",
    }


def _processor() -> str:
    found = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[0] if found else platform.machine()


def _disk(folder: Path) -> str:
    """Describe the disk that the data directories were on, and how long it takes to make 4 KB durable."""
    mounts = [line.split()[:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    _, _, kind = max((each for each in mounts if folder.is_relative_to(each[1])), key=lambda each: len(each[1]))
    p50, p99 = np.percentile(_syncs(folder), [50, 99])
    return f"{kind}, {shutil.disk_usage(folder).total / 2**30:.0f} GiB, fsync of 4 KB p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def _syncs(folder: Path, count: int = 300) -> list[float]:
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            begun = time.perf_counter()
            file.write(os.urandom(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - begun) * 1000)
    return took
