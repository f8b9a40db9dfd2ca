"""Unlearning on a real service: random items of a stream, each with bytes of its own, forgotten while it serves and learns."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.store import Version
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from service.verify import verify_versions
from tests.running import DIGITS, RunningService, learn, wait_for
from tests.test_acts import Twins, batches, files_with, latest

Digits = list[tuple[list[float], str]]
BATCH = 20


@pytest.mark.parametrize(
    ("items", "forgotten"), [(200, 5), pytest.param(2000, 50, marks=pytest.mark.long)], ids=["small", "large"]
)
def test_the_weights_are_those_of_a_learner_that_never_saw_the_items(tmp_path: Path, items: int, forgotten: int) -> None:
    gone = set(np.random.default_rng(8).choice(np.arange(1, items + 1), forgotten, replace=False).tolist())
    twins = Twins(tmp_path)
    twins.learn(batches([BATCH] * (items // BATCH), seed=1), gone)
    twins.forget({"seqs": sorted(gone)})
    assert latest(twins.seen).sha256 == latest(twins.never).sha256
    twins.close()


@pytest.mark.parametrize(
    ("items", "forgotten"), [(200, 5), pytest.param(2000, 50, marks=pytest.mark.long)], ids=["small", "large"]
)
def test_a_service_forgets_while_it_serves_and_learns_and_leaves_no_byte(
    tmp_path: Path, digits: Digits, items: int, forgotten: int
) -> None:
    rng = np.random.default_rng(8)
    answers: list[int] = []
    late: list[int] = []
    with RunningService(tmp_path, DIGITS) as service, service.client() as client:
        sent = [
            ([*digits[n % 1797][0][:63], round(float(rng.uniform(1e5, 1e6)), 6)], digits[n % 1797][1]) for n in range(items)
        ]
        seqs: list[int] = []
        for start in range(0, items, BATCH):
            predicted = client.post("/predict", json={"instances": [numbers for numbers, _ in sent[start : start + BATCH]]})
            assert predicted.status_code == 200 or start == 0
            body = learn(client, sent[start : start + BATCH])
            seqs += [each["seq"] for each in body["accepted"]]
        chosen = rng.choice(items, forgotten, replace=False).tolist()
        needles = [str(sent[index][0][63]).encode() for index in chosen]
        assert all(files_with(service.data, needle) for needle in needles)
        stopping = threading.Event()

        def go_on() -> None:
            with service.client() as other:
                for number in itertools.count():
                    answers.append(other.post("/predict", json={"instances": [digits[number % 500][0]]}).status_code)
                    item = {"instance": digits[number % 500][0], "label": digits[number % 500][1]}
                    late.append(other.post("/feedback", json={"feedback": [item]}).json()["log_seq"])
                    if stopping.wait(0.02):
                        return

        thread = threading.Thread(target=go_on)
        thread.start()
        where = client.post("/forget", json={"seqs": [seqs[index] for index in chosen]}).headers["Location"]
        wait_for(lambda: client.get(where).json()["status"] == "applied", "the forgetting", 600)
        stopping.set()
        thread.join()
        wait_for(lambda: client.get("/model").json()["lag"] == 0, "the rest to be learned")
        assert set(answers) == {200}
        assert {status(client, seqs[index]) for index in chosen} == {"forgotten"}
        others = [seq for index, seq in enumerate(seqs) if index not in chosen]
        assert {status(client, seq) for seq in [*others[:: max(1, items // 100)], *late]} <= {"applied", "holdout"}
        found = [files_with(service.data, needle) for needle in needles]
        assert found == [[] for _ in needles]
        assert service.stop() == 0
    assert stored_line(service.data)
    assert verify_versions(service.data)


def status(client: Any, seq: int) -> str:
    told: str = client.get(f"/feedback/{seq}").json()["status"]
    return told


def stored_line(data: Path) -> list[Version]:
    """Return the stored versions of the served line."""
    checkpoints = EmbeddedCheckpointStore(DataDirectory(data).open(), keep=2)
    rows = [row for row in checkpoints.following(-1, 10**6) if row.stored]
    checkpoints.close()
    assert all(row.superseded is None or row.version == 0 for row in rows if row.reason != "rollback")
    return rows
