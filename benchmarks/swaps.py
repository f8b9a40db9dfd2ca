"""What swaps cost predictions: /predict at a constant rate while 20 versions a second are published, and while none is.

    python -m benchmarks.swaps [--rounds N] [--seconds S]

The learner is stopped; this process publishes versions in its place, each a copy of the served one with other weights, so that
nothing but loading and swapping is beside the predictions. Open loop: a request that waits for a swap says so.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter

from safetensors.torch import load, save

from benchmarks.load import Answered, closed, opened
from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import LOAD, learned, question
from service.checkpointing import fingerprint
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from tests.running import RunningService

VERSIONS = 20  # a second


@contextmanager
def publishing(service: RunningService) -> Iterator[None]:
    """Publish versions until the context ends."""
    stopping = threading.Event()
    thread = threading.Thread(target=_publish, args=(service, stopping))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _publish(service: RunningService, stopping: threading.Event) -> None:
    with closing(EmbeddedCheckpointStore(DataDirectory(service.data).open(), keep=10)) as store:
        newest = store.latest()
        assert newest is not None
        gate = store.gate() or b"{}"
        tensors = load(store.path(newest.parts["model"]).read_bytes())
        due = time.monotonic()
        while not stopping.wait(max(0.0, due - time.monotonic())):
            due += 1 / VERSIONS
            name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim == 2)
            tensors[name] = tensors[name] * 1.0001
            parts = {**newest.parts, "model": store.put(save(tensors))}
            newest = replace(
                newest, version=newest.version + 1, parent=newest.version, parts=parts, sha256=fingerprint(parts), act=None
            )
            store.commit([newest], gate=gate)


def measured(service: RunningService, rate: float, seconds: int, swapping: bool) -> Answered:
    """Measure predictions, with or without swaps."""
    ask: Callable[[], Answered] = partial(opened, f"{service.url}/predict", question(), rate=rate, seconds=seconds)
    if not swapping:
        return ask()
    with publishing(service):
        return ask()


def main() -> None:
    given = options(__doc__, rounds=5, seconds=10)
    with learned() as service:
        for pid in service.pids("learner"):
            os.kill(pid, signal.SIGSTOP)
        os.sched_setaffinity(0, {LOAD})
        rate = closed(f"{service.url}/predict", question(), connections=8, seconds=3, core=LOAD).rate / 4
        measure = partial(measured, service, rate, given.seconds)
        rounds = interleaved({"swaps": partial(measure, True), "none": partial(measure, False)}, given.rounds)
    ratio = rounds.ratio("swaps", "none", attrgetter("p999"))
    p50, p999 = (rounds.medians(attrgetter(name)) for name in ("p50", "p999"))
    said = ", ".join(f"{side} p50 {p50[side]:.2f} ms p99.9 {p999[side]:.2f} ms" for side in rounds.sides)
    said = f"{rate:.0f} requests/s, {VERSIONS} versions/s: {said}"
    Row(6, "p99.9 of /predict under swaps, MLP", "no swaps", "at most 1.5x", f"{ratio}", ratio.median <= 1.5, said).write()
    print(said)


if __name__ == "__main__":
    main()
