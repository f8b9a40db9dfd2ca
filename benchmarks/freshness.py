"""From feedback to served: one item at a time, each waited for, beside one fsynced commit and one optimizer step alone.

python -m benchmarks.freshness [--rounds N] [--items N]
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import torch
from sklearn.datasets import load_digits

from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import learned

Milliseconds = np.ndarray  # of each item


def served(client: httpx.Client, numbers: count[int], items: int) -> Milliseconds:
    """Send items one by one, each with `Prefer: wait`; return how long each took until a served version had it."""
    pictures, labels = load_digits(return_X_y=True)
    took = []
    for number, _ in zip(numbers, range(items), strict=False):
        row = number % len(labels)
        feedback = {"feedback": [{"instance": pictures[row].tolist(), "label": str(labels[row]), "key": f"item {number}"}]}
        begun = time.perf_counter()
        answer = client.post("/feedback", json=feedback, headers={"Prefer": "wait=10"})
        took.append(time.perf_counter() - begun)
        assert answer.status_code == 200, answer.text
    return np.array(took) * 1000


def alone(items: int) -> Milliseconds:
    """Commit the bytes of an item to SQLite, synced, and make one optimizer step of the model on it, in one process."""
    pictures, labels = load_digits(return_X_y=True)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters())
    took = []
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "log.db", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE feedback (seq INTEGER PRIMARY KEY, instance BLOB, label TEXT)")
        for row in range(items):
            begun = time.perf_counter()
            database.execute("INSERT INTO feedback (instance, label) VALUES (?, ?)", (json.dumps(pictures[row].tolist()), "1"))
            optimizer.zero_grad()
            x, y = torch.tensor(pictures[row : row + 1], dtype=torch.float32), torch.tensor(labels[row : row + 1])
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            took.append(time.perf_counter() - begun)
        database.close()
    return np.array(took) * 1000


def main() -> None:
    given = options(__doc__, rounds=5, items=200)
    torch.set_num_threads(1)
    with learned() as service, service.client() as client:
        sides = {"everlearn": partial(served, client, count(), given.items), "alone": partial(alone, given.items)}
        rounds = interleaved(sides, given.rounds)
    p50, p99 = (rounds.medians(partial(np.percentile, q=share)) for share in (50, 99))
    ratio = rounds.ratio("everlearn", "alone", lambda took: float(np.median(took)))
    said = ", ".join(f"{side} p50 {p50[side]:.1f} ms p99 {p99[side]:.1f} ms" for side in rounds.sides)
    reached = ratio.median <= 3 and p50["everlearn"] < 20
    goal = "at most 3x, p50 under 20 ms"
    Row(
        9, "feedback to served, one item", "commit + step", goal, f"{ratio}, p50 {p50['everlearn']:.1f} ms", reached, said
    ).write()
    print(said)


if __name__ == "__main__":
    main()
