"""Promises 1 and 2 under SIGKILL, for every scenario that has a template."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.test_kill import kill_and_restart
from tests.scenarios import SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_or_applied_twice_in_any_scenario(tmp_path: Path, scenario: str) -> None:
    config, items = SCENARIOS[scenario](tmp_path)
    kill_and_restart(tmp_path, config, items, 1)


@pytest.mark.long
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_or_applied_twice_in_any_scenario_over_fifty_kills(tmp_path: Path, scenario: str) -> None:
    config, items = SCENARIOS[scenario](tmp_path)
    kill_and_restart(tmp_path, config, items, 50)
