"""What swaps cost predictions: /predict at a constant rate while 20 versions a second are published, and while none is.

    python -m benchmarks.swaps [--rounds N] [--seconds S]

The learner is stopped; this process publishes versions in its place, each a copy of the served one with other weights, so that
nothing but loading and swapping is beside the predictions. Open loop: a request that waits for a swap says so. Of ResNet-18 the
head learns, as is the default, or all of it: then 45 MB are loaded and checked 20 times a second, more than most disks could
write, so two sets of weights take turns.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle
from operator import attrgetter

from safetensors.torch import load, save

from benchmarks.load import Answered, closed, opened
from benchmarks.photos import RESNET, encoded, labelled, photos
from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import LOAD, MLP, learned, question
from service.checkpointing import fingerprint
from service.store import Version
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from tests.running import RunningService

VERSIONS = 20  # a second
WRITABLE = 2**20  # bytes that a disk can make durable so often
PATIENT = "\n[learner]\nwatchdog_seconds = 1e6\n"  # with a learner that is stopped
WHOLE = RESNET.replace('"none"', '"none"\ntrain = "all"')
GOAL = 1.5


@contextmanager
def publishing(service: RunningService) -> Iterator[None]:
    """Publish versions until the context ends."""
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(_publish, service, stopping)
        try:
            yield
        finally:
            stopping.set()
        published.result()


def _publish(service: RunningService, stopping: threading.Event) -> None:
    with closing(EmbeddedCheckpointStore(DataDirectory(service.data).open(), keep=10)) as store:
        newest = store.latest()
        assert newest is not None
        gate = store.gate() or b"{}"
        weights = _weights(store, newest)
        due = time.monotonic()
        while not stopping.wait(max(0.0, due - time.monotonic())):
            due += 1 / VERSIONS
            parts = {**newest.parts, "model": next(weights)}
            newest = replace(
                newest, version=newest.version + 1, parent=newest.version, parts=parts, sha256=fingerprint(parts), act=None
            )
            store.commit([newest], gate=gate)


def _weights(store: EmbeddedCheckpointStore, version: Version) -> Iterator[str]:
    """Yield the content hashes of weights that are put into the store; two in turn where they are large."""
    data = bytes(store.read(version.parts["model"]))
    tensors = load(data)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim == 2)

    def other() -> str:
        tensors[name] = tensors[name] * 1.0001
        return store.put({"model": save(tensors)})["model"]

    if len(data) < WRITABLE:
        while True:
            yield other()
    yield from cycle([other(), other()])


def measured(service: RunningService, body: bytes, rate: float, seconds: int, swapping: bool) -> Answered:
    """Measure predictions, with or without swaps."""
    ask: Callable[[], Answered] = partial(opened, f"{service.url}/predict", body, rate=rate, seconds=seconds)
    if not swapping:
        return ask()
    with publishing(service):
        return ask()


def served(service: RunningService) -> int:
    """Return the number of the served version."""
    with service.client() as client:
        return int(client.get("/model").json()["model_version"])


def compared(name: str, service: RunningService, body: bytes, load: float, *, rounds: int, seconds: int) -> None:
    """Measure and write the row of a model, at a share of the load that it could answer."""
    for pid in service.pids("learner"):
        os.kill(pid, signal.SIGSTOP)
    os.sched_setaffinity(0, {LOAD})
    rate = load * closed(f"{service.url}/predict", body, connections=8, seconds=3, core=LOAD).rate
    before = served(service)
    measure = partial(measured, service, body, rate, seconds)
    found = interleaved({"swaps": partial(measure, True), "none": partial(measure, False)}, rounds)
    swaps = (served(service) - before) / ((rounds + 1) * seconds)
    assert swaps > VERSIONS / 2, f"{swaps:.1f} versions/s were published, not {VERSIONS}"
    ratio = found.ratio("swaps", "none", attrgetter("p999"))
    p50, p999 = (found.medians(attrgetter(name)) for name in ("p50", "p999"))
    latencies = ", ".join(f"{side} p50 {p50[side]:.2f} ms p99.9 {p999[side]:.2f} ms" for side in found.sides)
    said = f"{rate:.0f} requests/s for {seconds} s a round, {swaps:.0f} versions/s: {latencies}"
    row = Row(
        6, f"p99.9 of /predict under swaps, {name}", "no swaps", f"at most {GOAL}x", f"{ratio}", ratio.median <= GOAL, said
    )
    row.write()
    print(said)


def main() -> None:
    given = options(__doc__, rounds=5, seconds=10)
    with learned(MLP + PATIENT) as service:
        compared("MLP", service, question(), 0.25, rounds=given.rounds, seconds=given.seconds)
    photo = json.dumps({"instances": [{"b64": encoded(photos(1)[0])}]}).encode()
    for name, config in (("ResNet-18, its head", RESNET), ("ResNet-18, all of it", WHOLE)):
        with learned(config + PATIENT, items=labelled(20)) as service:
            # Few requests a second: a p99.9 needs more of them than a short round has.
            compared(name, service, photo, 0.5, rounds=given.rounds, seconds=6 * given.seconds)


if __name__ == "__main__":
    main()
