"""How cost grows with the log: append, rehearsal pick, restart and listings with 10^4, 10^5 and 10^6 items in it.

    python -m benchmarks.growth [--rounds N] [--items N]

`--items` is how many the longest log has; the others have a tenth and a hundredth. The logs hold digits. The first updates of
each are the learner's own; the rest of its versions are copies of the last one, moved on, as if learning had come to the log's
end: a restart finds that nothing waits. The memory of rehearsal has seen all items.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from benchmarks.rounds import Rounds, Row, interleaved, options
from benchmarks.servers import MLP, digits
from service.learning.rehearsal import MEMORIES, Memory
from service.store import NewEntry, Version
from service.store.embedded import DataDirectory, EmbeddedFeedbackLog
from tests.running import RunningService
from tests.workshop import Workshop

UPDATE = 256  # items
REAL = 8  # updates that the learner makes
ROWS = 100  # versions that are written at once
CALLS = 100  # of each kind in a round
MEMORY = 2000, 500  # capacity and mean age, as the settings have them
PICKED = 4 * UPDATE  # four earlier items for each new one
PATHS = ("/versions?limit=20", "/feedback/2000", "/model")
GOAL = 1.5  # 10^6 has 1.5 times the logarithm of 10^4


def build(folder: Path, items: int) -> None:
    """Make a data directory with a log of so many items, all of them learned."""
    given = entries(UPDATE)
    with closing(Workshop(folder, UPDATE, model=tomllib.loads(MLP)["model"])) as workshop:
        for _ in range(REAL):
            workshop.log.append(given).result()
        workshop.learn()
        for _ in range(items // UPDATE - REAL):
            workshop.log.append(given).result()
        last, end, gate = workshop.checkpoints.latest(), workshop.log.end(), workshop.checkpoints.gate()
        assert last is not None
        assert gate is not None
        later = [moved(last, steps) for steps in range(1, (end - last.applied_seq) // UPDATE + 1)]
        for first in range(0, len(later), ROWS):
            workshop.checkpoints.commit(later[first : first + ROWS], gate=gate)


def moved(version: Version, updates: int) -> Version:
    """Return a version as if it were so many updates later."""
    by = updates * UPDATE
    return replace(
        version,
        version=version.version + updates,
        parent=version.version + updates - 1,
        updates=version.updates + updates,
        first_seq=version.first_seq + by,
        last_seq=version.last_seq + by,
        applied_seq=version.applied_seq + by,
        held=tuple(seq + by for seq in version.held),
        weights={seq + by: weight for seq, weight in version.weights.items()},
        steps=[[[seq + by for seq in new], rehearsed] for new, rehearsed in version.steps],
    )


def entries(count: int) -> list[NewEntry]:
    """Return digits as the log takes them."""
    return [
        NewEntry(instance=json.dumps(item["instance"]).encode(), label=json.dumps(item["label"]), digest=b"")
        for item in digits(count)
    ]


def appended(log: EmbeddedFeedbackLog, count: int) -> float:
    """Make entries durable, again and again."""
    given = entries(count)
    return typical(lambda: log.append(given).result())


def rehearsed(log: EmbeddedFeedbackLog, memory: Memory) -> float:
    """Pick what is rehearsed beside an update, and read it from the log."""
    choices = np.random.default_rng(0)
    return typical(lambda: log.fetch(memory.pick(PICKED, choices)))


def asked(client: httpx.Client, path: str) -> float:
    """Ask for something over HTTP."""
    return typical(lambda: client.get(path).raise_for_status())


def typical(call: Callable[[], object]) -> float:
    """Return the median of the milliseconds that some calls take."""
    took = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1000)
    return float(np.median(took))


def restarted(folder: Path, read: list[float]) -> float:
    """Start a service, and take down how much learner and worker had read by then, in MB."""
    begun = time.perf_counter()
    with RunningService(folder, MLP, warm=False) as service:
        took = time.perf_counter() - begun
        read.append(sum(bytes_read(pid) for role in ("worker", "learner") for pid in service.pids(role)) / 1e6)
        service.stop()
    return took * 1000


def bytes_read(pid: int) -> int:
    """Return how much a process has read, from the disk or from the page cache."""
    return int(re.findall(r"rchar: (\d+)", Path(f"/proc/{pid}/io").read_text())[0])


def remembering(items: int) -> Memory:
    """Return the memory of rehearsal after so many items."""
    memory, choices = MEMORIES["mixed"](*MEMORY), np.random.default_rng(0)
    memory.remember(range(1, items + 1), [seq % 10 for seq in range(items)], choices)
    return memory


def write(what: str, found: Rounds, remark: str = "") -> None:
    """Write the row of something."""
    shortest, *_, longest = found.sides
    ratio = found.ratio(longest, shortest, float)
    said = ", ".join(f"{side} items {milliseconds:.2f} ms" for side, milliseconds in found.medians(float).items()) + remark
    goal = f"at most {GOAL}x, the ratio of the logarithms"
    Row(11, f"{what}, {longest} items", f"{shortest} items", goal, f"{ratio}", ratio.median <= GOAL, said).write()
    print(said)


def size_of(folder: Path) -> float:
    """Return the size of a data directory's log, in MB."""
    return DataDirectory(folder / "data").log.stat().st_size / 1e6


def restarts(folders: Mapping[str, Path], rounds: int) -> None:
    """Write the row of the restart."""
    sizes = {name: size_of(folder) for name, folder in folders.items()}
    read: dict[str, list[float]] = {name: [] for name in folders}
    found = interleaved({name: partial(restarted, folder, read[name]) for name, folder in folders.items()}, rounds)
    held = ", ".join(f"{np.median(read[name]):.0f} MB read with a log of {sizes[name]:.0f} MB" for name in folders)
    write("restart", found, f"; {held}")


def listings(folders: Mapping[str, Path], rounds: int) -> None:
    """Write the rows of what is asked for over HTTP."""
    with ExitStack() as stack:
        services = {name: stack.enter_context(RunningService(folder, MLP, warm=False)) for name, folder in folders.items()}
        clients = {name: stack.enter_context(service.client()) for name, service in services.items()}
        for path in PATHS:
            found = interleaved({name: partial(asked, client, path) for name, client in clients.items()}, rounds)
            write(f"GET {path}", found)


def log_itself(folders: Mapping[str, Path], items: Sequence[int], rounds: int) -> None:
    """Write the rows of rehearsal and of appending."""
    with ExitStack() as stack:
        opened = {name: EmbeddedFeedbackLog(DataDirectory(folder / "data").open()) for name, folder in folders.items()}
        logs = {name: stack.enter_context(closing(log)) for name, log in opened.items()}
        memories = {name: remembering(count) for name, count in zip(folders, items, strict=True)}
        picking = {name: partial(rehearsed, log, memories[name]) for name, log in logs.items()}
        write(f"rehearsal pick of {PICKED}, read", interleaved(picking, rounds))
        for count in (1, UPDATE):
            appending = {name: partial(appended, log, count) for name, log in logs.items()}
            write(f"append of {count}, durable", interleaved(appending, rounds))


def main() -> None:
    given = options(__doc__, rounds=3, items=1_000_000)
    items = [given.items // 100, given.items // 10, given.items]
    with ExitStack() as stack:
        folders = {f"{count:,}": Path(stack.enter_context(tempfile.TemporaryDirectory())) for count in items}
        for count, folder in zip(items, folders.values(), strict=True):
            build(folder, count)
        restarts(folders, given.rounds)
        listings(folders, given.rounds)
        log_itself(folders, items, given.rounds)


if __name__ == "__main__":
    main()
