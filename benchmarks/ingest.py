"""Feedback made durable, single items and batches of 256, beside SQLite alone committing the same bytes in groups of 256.

    python -m benchmarks.ingest [--rounds N] [--seconds S]

The learner learns meanwhile, as far as it gets, on the core that wrk leaves mostly idle.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from functools import partial
from pathlib import Path

from sklearn.datasets import load_digits

from benchmarks.load import closed
from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import LOAD, MLP, SERVER, learned, pin

BATCH = 256
CONFIG = MLP + "\n[limits]\nbacklog = 100_000_000\n"


def feedback(items: int) -> bytes:
    """Return a request's body."""
    pictures, labels = load_digits(return_X_y=True)
    given = zip(pictures[:items], labels[:items], strict=True)
    return json.dumps({"feedback": [{"instance": x.tolist(), "label": str(y)} for x, y in given]}).encode()


def posted(url: str, items: int, connections: int, seconds: int) -> float:
    """Post over HTTP; return items a second."""
    return items * closed(url, feedback(items), connections=connections, seconds=seconds, core=LOAD).rate


def grouped(seconds: float) -> float:
    """Commit groups to SQLite; return items a second."""
    pictures, _ = load_digits(return_X_y=True)
    rows = [(json.dumps(x.tolist()), "1") for x in pictures[:BATCH]]
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "log.db", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE feedback (seq INTEGER PRIMARY KEY, instance BLOB, label TEXT)")
        groups, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            database.execute("BEGIN")
            database.executemany("INSERT INTO feedback (instance, label) VALUES (?, ?)", rows)
            database.execute("COMMIT")
            groups += 1
        database.close()
    return groups * BATCH / (time.perf_counter() - begun)


def main() -> None:
    given = options(__doc__, rounds=3, seconds=5)
    with learned(CONFIG) as service:
        for pid in service.pids("learner"):
            pin(pid, LOAD)
        pin(os.getpid(), SERVER)  # SQLite alone; wrk has its own
        url = f"{service.url}/feedback"
        rounds = interleaved(
            {
                "batches": partial(posted, url, BATCH, 4, given.seconds),
                "single items": partial(posted, url, 1, 32, given.seconds),
                "SQLite alone": partial(grouped, given.seconds),
            },
            given.rounds,
        )
    said = ", ".join(f"{side} {rate:.0f} items/s" for side, rate in rounds.medians(float).items())
    ratio = rounds.ratio("batches", "SQLite alone", float)
    single = rounds.ratio("single items", "batches", float)
    measured = f"{ratio}; single items {single} of the batches"
    Row(7, "feedback ingest, durable", "SQLite alone", "at least 0.8x in batches", measured, ratio.median >= 0.8, said).write()
    print(said)


if __name__ == "__main__":
    main()
