"""Feedback that makes updates fail: the service serves on, and everything else is learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from service.verify import consumed, verify_versions
from tests.running import RunningService, wait_for

POISONED = """
[model]
class = "tests.faults.poison:Poisonable"
[learner]
watchdog_seconds = 1
[limits]
feedback = 500
"""


ENDS_THE_PROCESS = 9  # items in such a test: each halving costs a start of the learner


@pytest.mark.parametrize(
    ("poison", "items"),
    [
        ("raise", 60),
        ("infinite", 60),
        ("exit", ENDS_THE_PROCESS),
        ("hang", ENDS_THE_PROCESS),
        pytest.param("segfault", ENDS_THE_PROCESS, marks=pytest.mark.long),
        pytest.param("memory", 60, marks=pytest.mark.long),
    ],
)
def test_a_poison_pill_is_found_and_set_aside_with_its_reason(tmp_path: Path, poison: str, items: int) -> None:
    with RunningService(tmp_path, POISONED) as service, service.client() as client:
        good = [{"instance": [float(number % 2)] * 4, "label": "ab"[number % 2]} for number in range(items)]
        bad = 2 * items // 3
        feedback = [*good[:bad], {"instance": [1.0] * 4, "label": poison}, *good[bad:]]
        sent = client.post("/feedback", json={"feedback": feedback}).json()
        seqs = [item["seq"] for item in sent["accepted"]]
        wait_for(lambda: client.get("/model").json()["applied_seq"] == sent["log_seq"], "learning to pass it", 120)
        status = client.get(f"/feedback/{seqs[bad]}").json()
        assert status["status"] == "quarantined"
        assert status["reason"]
        others = [client.get(f"/feedback/{seq}").json()["status"] for seq in seqs if seq != seqs[bad]]
        assert set(others) == {"applied"}
        answer = client.post("/predict", json={"instances": [[0.0] * 4, [1.0] * 4]})
        assert answer.status_code == 200
        assert client.get("/readyz").status_code == 200
        assert service.stop() == 0
    checkpoints = EmbeddedCheckpointStore(DataDirectory(service.data).open(), keep=2)
    assert consumed(checkpoints) == dict.fromkeys(seqs, 1)
    checkpoints.close()
    assert verify_versions(service.data)
