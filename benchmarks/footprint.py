"""What a service takes: time from its start until it is ready, memory, and growth under load, beside `import torch` alone.

    python -m benchmarks.footprint [--rounds N] [--minutes N]

Start: the wall-clock time of `everlearn serve` until it says that it is ready, on a new data directory and on one that has
learned, beside that of an interpreter that imports torch and ends. Memory: the resident set of API worker and learner beside
that of an interpreter that has imported torch. Growth: predictions and feedback at a constant rate; a line is fitted to the
resident set of each process, after the first third of the time, in which rehearsal and caches fill. The proportional share
(PSS) is told too, but it changes with whoever else has torch loaded.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.load import opened
from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import MLP, Items, digits, learned, question
from tests.running import RunningService, learn

GOAL = 1.3
ROLES = ("worker", "learner")
PREDICTIONS, ITEMS = 200, 256  # a second: after a third of an hour the shelf of ready items is full
NOISE = 2  # standard deviations


def started(folder: Path) -> float:
    """Start a service on a data directory; return the seconds until it was ready."""
    begun = time.perf_counter()
    with RunningService(folder, MLP, warm=False) as service:
        took = time.perf_counter() - begun
        if not service.data.joinpath("learned").exists():
            with service.client() as client:
                learn(client, [(item["instance"], item["label"]) for item in digits(100)])
            service.data.joinpath("learned").touch()
        service.stop()
    return took


def started_anew() -> float:
    """Start a service on a new data directory."""
    with tempfile.TemporaryDirectory() as folder:
        return started(Path(folder))


def imported() -> float:
    """Import torch in a new interpreter; return the seconds."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - begun


def start(rounds: int) -> None:
    """Write the row of the start."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {"new": started_anew, "again": partial(started, Path(folder)), "import torch": imported}
        found = interleaved(sides, rounds)
    new, again = (found.ratio(side, "import torch", float) for side in ("new", "again"))
    said = ", ".join(f"{side} {seconds:.2f} s" for side, seconds in found.medians(float).items())
    reached = max(new.median, again.median) <= GOAL
    measured = f"{new} on a new directory, {again} on one that has learned"
    Row(10, "start to ready", "import torch", f"at most {GOAL}x", measured, reached, said).write()
    print(said)


@dataclass(frozen=True)
class Memory:
    """What a process takes, in MB."""

    rss: float
    pss: float

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Measure a process."""
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
        rss, pss = (int(re.findall(rf"^{name}:\s+(\d+) kB", told, re.M)[0]) / 1024 for name in ("Rss", "Pss"))
        return cls(rss, pss)


def torch_alone() -> Memory:
    """Return what an interpreter takes that has imported torch."""
    code = "import torch, sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return Memory.of(process.pid)


def memory(service: RunningService) -> None:
    """Write the row of the memory."""
    alone = torch_alone()
    taken = {role: Memory.of(pid) for role in ROLES for pid in service.pids(role)}
    ratios = {role: of.rss / alone.rss for role, of in taken.items()}
    said = ", ".join(f"{name} RSS {of.rss:.0f} MB PSS {of.pss:.0f} MB" for name, of in {**taken, "import torch": alone}.items())
    measured = ", ".join(f"{role} {ratio:.2f}" for role, ratio in ratios.items())
    reached = max(ratios.values()) <= GOAL
    Row(10, "memory, RSS", "import torch", f"at most {GOAL}x each", measured, reached, said).write()
    print(said)


@contextmanager
def loaded(service: RunningService, seconds: float) -> Iterator[threading.Thread]:
    """Predict and teach at a constant rate, each in a thread; give the one that ends when the time is over."""
    over = threading.Event()
    asking = threading.Thread(
        target=opened, args=(f"{service.url}/predict", question()), kwargs={"rate": PREDICTIONS, "seconds": seconds}
    )
    teaching = threading.Thread(target=teach, args=(service, over))
    asking.start()
    teaching.start()
    try:
        yield asking
    finally:
        over.set()
        teaching.join()
        asking.join()


def teach(service: RunningService, over: threading.Event, every: float = 0.25) -> None:
    """Send labels until it is over."""
    items: Items = digits(1600)
    size = int(ITEMS * every)
    parts = cycle([items[first : first + size] for first in range(0, len(items), size)])
    with service.client() as client:
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            due += every
            client.post("/feedback", json={"feedback": next(parts)}).raise_for_status()


@dataclass(frozen=True)
class Line:
    """A line through what a process took."""

    growth: float
    """From the first to the last sample, in MB."""
    noise: float
    """Standard deviation of the samples around the line, in MB."""

    @classmethod
    def through(cls, seconds: np.ndarray, megabytes: np.ndarray) -> Line:
        """Fit it, least squares."""
        slope, level = np.polyfit(seconds, megabytes, 1)
        around = megabytes - (slope * seconds + level)
        return cls(float(slope * (seconds[-1] - seconds[0])), float(around.std()))

    @property
    def flat(self) -> bool:
        """Whether it rises no more than the samples lie around it."""
        return self.growth <= NOISE * self.noise


def growth(service: RunningService, minutes: int) -> None:
    """Write the row of the growth."""
    pids = {role: pid for role in ROLES for pid in service.pids(role)}
    begun = time.perf_counter()
    samples = []
    with loaded(service, minutes * 60) as running, service.client() as client:
        while running.is_alive():
            samples.append((time.perf_counter() - begun, *(Memory.of(pid).rss for pid in pids.values())))
            running.join(1.0)
        model = client.get("/model").json()
    seconds, *taken = np.array(samples[len(samples) // 3 :]).T
    lines = {role: Line.through(seconds, megabytes) for role, megabytes in zip(pids, taken, strict=True)}
    measured = ", ".join(f"{role} {line.growth:+.1f} MB (noise {line.noise:.1f} MB)" for role, line in lines.items())
    levels = ", ".join(f"{role} {of[0]:.0f} to {of[-1]:.0f} MB" for role, of in zip(pids, taken, strict=True))
    said = (
        f"{PREDICTIONS} predictions and {ITEMS} labels a second for {minutes} minutes, of which the last two thirds count;"
        f" RSS {levels}; {model['log_seq']} items in the log, version {model['model_version']} at the end"
    )
    goal = f"growth within noise, {NOISE} standard deviations"
    reached = all(line.flat for line in lines.values())
    Row(10, f"growth over {minutes} minutes", "the samples around the line", goal, measured, reached, said).write()
    print(said)


def main() -> None:
    given = options(__doc__, rounds=5, minutes=2)
    start(given.rounds)
    with learned() as service:
        memory(service)
        growth(service, given.minutes)


if __name__ == "__main__":
    main()
