"""Promises 3 and 4 under load: every answer names one committed version, and on a connection it never goes back."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import pytest

from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from tests.running import DIGITS, RunningService, learn

Digits = list[tuple[list[float], str]]

CONNECTIONS = 4
SMALL_JOURNAL = DIGITS + "\n[store]\njournal_bytes = 4000000\n"


def resident_mb(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def swap_under_load(folder: Path, digits: Digits, swaps: int) -> tuple[float, float]:
    """Make versions one by one while clients predict; return the worker's resident MB after a tenth and at the end."""
    seen: list[list[tuple[int, int]]] = [[] for _ in range(CONNECTIONS)]
    stopping = threading.Event()
    with RunningService(folder, SMALL_JOURNAL) as service:
        checkpoints = EmbeddedCheckpointStore(DataDirectory(service.data).open(), keep=100)

        def predict(own: list[tuple[int, int]]) -> None:
            with service.client() as client:
                for number in itertools.count():
                    body = client.post("/predict", json={"instances": [digits[number % 500][0]] * 2}).raise_for_status().json()
                    committed = checkpoints.latest() if number % 20 == 0 else None
                    own.append((body["model_version"], committed.version if committed else -1))
                    if stopping.is_set():
                        return

        with service.client() as client:
            learn(client, digits[:10])
            threads = [threading.Thread(target=predict, args=(own,)) for own in seen]
            for thread in threads:
                thread.start()
            (worker,) = service.pids("worker")
            sizes = []
            for number in range(swaps):
                learn(client, [digits[number % len(digits)]])
                if number in (swaps // 10, swaps - 1):
                    sizes.append(resident_mb(worker))
            stopping.set()
            for thread in threads:
                thread.join()
            versions = client.get("/model").json()["model_version"]
        checkpoints.close()
        assert service.stop() == 0
    assert versions >= swaps
    for own in seen:
        served = [version for version, _ in own]
        assert served == sorted(served), "a connection saw an older version after a newer one"
        assert all(version <= committed for version, committed in own if committed >= 0)
        assert len(set(served)) > swaps / 20, "the load did not meet the swaps"
    return sizes[0], sizes[1]


def test_versions_move_forward_under_load_and_memory_is_flat(tmp_path: Path, digits: Digits) -> None:
    before, after = swap_under_load(tmp_path, digits, swaps=200)
    assert after - before < 40, json.dumps([before, after])


@pytest.mark.long
def test_memory_is_flat_over_a_thousand_swaps(tmp_path: Path, digits: Digits) -> None:
    before, after = swap_under_load(tmp_path, digits, swaps=1000)
    assert after - before < 40, json.dumps([before, after])
