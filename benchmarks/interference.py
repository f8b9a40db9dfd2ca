"""What learning costs those who predict: /predict at half of what a core can answer, learner flat out and learner at rest.

    python -m benchmarks.interference [--rounds N] [--seconds S]

The worker has core 0 and the learner core 1. The load generator needs a core too: the third one, or on a machine of two the
learner's. There the learner is given the kernel's idle policy, so that it takes every cycle of its core that the generator
leaves, and never lets the generator wait, whose waiting would be taken for the server's. What it got of its core is reported;
below a half it was not flat out, and the goal does not count as reached. Its backlog is filled up before each round. At rest it
is stopped by a signal.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks.load import Answered, closed, opened
from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import MLP, SERVER, digits, learned, pin, question

CONFIG = MLP + "\n[limits]\nbacklog = 100_000_000\n"
LEARNER = 1  # core
FASTEST = 20_000  # items a second that no learner reaches here: so many are in its backlog for each second
GOAL = 1.25
FLAT_OUT = 0.5  # of a core, at least


@dataclass(frozen=True)
class Measured:
    """What a load saw, and what the learner did meanwhile."""

    answered: Answered
    items: float
    """Learned, a second."""
    versions: float
    """Made, a second."""
    share: float
    """Of a core, that the learner computed with."""

    @property
    def p99(self) -> float:
        return self.answered.p99


def fill(client: httpx.Client, backlog: int) -> None:
    """Send feedback until so much of it waits."""
    items = digits(1000)
    while client.get("/model").json()["lag"] < backlog:
        client.post("/feedback", json={"feedback": items}).raise_for_status()


@contextmanager
def running(pid: int) -> Iterator[None]:
    """Let a stopped process run while the context lasts."""
    os.kill(pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGSTOP)


def at_rest(url: str, rate: float, seconds: int) -> Measured:
    """Measure predictions alone."""
    return Measured(opened(f"{url}/predict", question(), rate=rate, seconds=seconds), 0, 0, 0)


def flat_out(url: str, rate: float, seconds: int, *, client: httpx.Client, learner: int) -> Measured:
    """Measure predictions while the learner works off a backlog that is longer than the round."""
    fill(client, FASTEST * seconds)
    before, used, begun = client.get("/model").json(), computed(learner), time.perf_counter()
    with running(learner):
        answered = opened(f"{url}/predict", question(), rate=rate, seconds=seconds)
    took = time.perf_counter() - begun
    after = client.get("/model").json()
    assert after["lag"] > 0, "the learner ran out of feedback: raise FASTEST"
    items, versions = (after[name] - before[name] for name in ("applied_seq", "model_version"))
    return Measured(answered, items / took, versions / took, (computed(learner) - used) / took)


def computed(pid: int) -> float:
    """Return the seconds that a process has computed for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share_a_core(learner: int) -> None:
    """Have the learner make way, on its core, for whatever else wants to run there."""
    for thread in os.listdir(f"/proc/{learner}/task"):
        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))


def main() -> None:
    given = options(__doc__, rounds=5, seconds=10)
    generator = next((core for core in sorted(os.sched_getaffinity(0)) if core not in {SERVER, LEARNER}), LEARNER)
    with learned(CONFIG) as service, service.client() as client:
        (learner,) = service.pids("learner")
        pin(learner, LEARNER)
        if generator == LEARNER:
            share_a_core(learner)
        os.kill(learner, signal.SIGSTOP)
        os.sched_setaffinity(0, {generator})
        rate = closed(f"{service.url}/predict", question(), connections=32, seconds=3, core=generator).rate / 2
        load = (service.url, rate, given.seconds)
        sides = {
            "flat out": partial(flat_out, *load, client=client, learner=learner),
            "at rest": partial(at_rest, *load),
        }
        rounds = interleaved(sides, given.rounds)
    ratio = rounds.ratio("flat out", "at rest", lambda measured: measured.p99)
    p50, p99 = rounds.medians(lambda measured: measured.answered.p50), rounds.medians(lambda measured: measured.p99)
    items, versions, share = (
        rounds.median("flat out", figure)
        for figure in (lambda each: each.items, lambda each: each.versions, lambda each: each.share)
    )
    latencies = ", ".join(f"{side} p50 {p50[side]:.2f} ms p99 {p99[side]:.2f} ms" for side in rounds.sides)
    beside = "beside the load generator" if generator == LEARNER else "alone"
    said = (
        f"{rate:.0f} requests/s, learner {latencies}; it learned {items:.0f} items/s in {versions:.0f} versions/s"
        f" with {share:.0%} of its core, {beside}"
    )
    figure = "p99 of /predict at half load, learner flat out on its own core"
    Row(5, figure, "learner at rest", f"at most {GOAL}x", f"{ratio}", ratio.median <= GOAL and share >= FLAT_OUT, said).write()
    print(said)


if __name__ == "__main__":
    main()
