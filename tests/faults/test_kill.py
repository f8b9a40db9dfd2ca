"""Promises 1, 2 and 4 under SIGKILL of any process, at random moments and at every named call that touches the disk."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.frozen import CONFIG
from tests.faults.history import Items
from tests.faults.plan import Action, Fault
from tests.faults.storm import SEED, AtMoment, Strike, Struck, kills, storm, survey
from tests.running import DIGITS, learn, wait_for

ROUND = 60


def kill_and_restart(folder: Path, config: str, items: Items, number: int) -> None:
    """Kill all processes at random moments, under clients."""
    choices = random.Random(SEED)
    strikes: list[Strike] = [AtMoment("all", choices.uniform(0.0, 1.0)) for _ in range(number)]
    _, found = storm(folder, config, items, strikes)
    assert found.quarantined == 0, "what the whole service died of is not an item's fault"
    assert found.acknowledged > number


def test_nothing_is_lost_or_applied_twice_when_everything_is_killed(tmp_path: Path, digits: Items) -> None:
    kill_and_restart(tmp_path, DIGITS, digits, 3)


def test_nothing_is_lost_or_applied_twice_when_processes_are_killed_at_named_calls(tmp_path: Path, digits: Items) -> None:
    choices = random.Random(SEED)
    strikes = kills(survey(tmp_path / "survey", CONFIG, digits), 1, choices)
    met, found = storm(tmp_path / "storm", CONFIG, digits, strikes[:15])
    assert met.total() > 10
    assert found.acknowledged > 90


@pytest.mark.long
def test_a_thousand_kills_and_each_named_call_ten_times(tmp_path: Path, digits: Items) -> None:
    print(f"FAULT_SEED={SEED}")
    choices = random.Random(SEED)
    passed = survey(tmp_path / "survey", CONFIG, digits)
    met: Counter[str] = Counter()
    strikes = kills(passed, 10, choices)
    for number in range(100):
        if not strikes:  # a call that did not come when it was waited for is waited for again
            rare = {occasion: {name: n for name, n in points.items() if met[name] < 10} for occasion, points in passed.items()}
            strikes = kills(rare, 2, choices)
        if not strikes:
            break
        part, strikes = strikes[:ROUND], strikes[ROUND:]
        more, _ = storm(tmp_path / f"round{number}", CONFIG, digits, part)
        met += more
        print(f"after round {number}: {met.total()} kills, {dict(met)}", flush=True)
    for point in {point for points in passed.values() for point in points}:
        assert met[point] >= 10, f"{point} was met {met[point]} times"
    assert met.total() >= 1000


def start_killed_at(folder: Path, call: int, action: Action) -> bool:
    """Kill all processes at a call of their first start; return whether there was such a call. Then they start."""
    struck = Struck(folder, CONFIG)
    struck.plan.arm(Fault(action=action, first=call, everyone=True))
    process = struck.service.launch()
    wait_for(lambda: process.poll() is not None or struck.service.ready_url(), "an end or a start")
    met = bool(struck.plan.fired())
    struck.service.kill()
    struck.plan.disarm()
    with struck.service as service, service.client() as client:
        assert learn(client, [([1.0] * 64, "a")])["log_seq"] == 1
        assert service.stop() == 0
    return met


@pytest.mark.parametrize("call", [1, 3, 9, 30, 60, 90, 120, 150])
def test_a_kill_in_the_first_start_leaves_a_directory_that_starts(tmp_path: Path, call: int) -> None:
    action = random.Random(call).choice([Action.KILL_BEFORE, Action.KILL_AFTER, Action.KILL_HALF])
    assert start_killed_at(tmp_path, call, action)


@pytest.mark.long
def test_a_kill_at_each_call_of_the_first_start_leaves_a_directory_that_starts(tmp_path: Path) -> None:
    for call in range(1, 1000):
        for action in (Action.KILL_BEFORE, Action.KILL_HALF):
            if not start_killed_at(tmp_path / f"{call}-{action.name}", call, action):
                assert call > 150
                return
