"""A wall clock that jumps back and forth: it is recorded, and nothing is computed with it but the age of predictions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.frozen import CONFIG
from tests.faults.history import Items, check, clients
from tests.faults.storm import SEED, Struck
from tests.running import wait_for

YEAR = 365 * 86_400.0


def jump(folder: Path, items: Items, jumps: int) -> None:
    choices = random.Random(SEED)
    struck = Struck(folder, CONFIG, "--workers", "2")
    with struck.service as service:
        with clients(service, items) as working:
            for _ in range(jumps):
                ahead = choices.choice([0.0, 1.0, 60.0, 86_400.0, YEAR]) * choices.choice([-1, 1])
                print(f"the clock is {ahead:+.0f} s ahead")
                struck.plan.set_clock(ahead)
                before = sum(client.acknowledged for client in working)
                wait_for(lambda before=before: sum(client.acknowledged for client in working) > before + 9, "answers")
        with service.client() as client:
            wait_for(lambda: client.get("/model").json()["lag"] == 0, "the learner to catch up")
        assert service.stop() == 0
    assert check(service.data, [event for client in working for event in client.events]).acknowledged > 5 * jumps


def test_nothing_is_lost_when_the_clock_jumps(tmp_path: Path, digits: Items) -> None:
    jump(tmp_path, digits, 10)


@pytest.mark.long
def test_nothing_is_lost_when_the_clock_jumps_two_hundred_times(tmp_path: Path, digits: Items) -> None:
    jump(tmp_path, digits, 200)
