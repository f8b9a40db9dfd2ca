from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from service.tune import RECORDED, changed, interval, single, together
from tests.running import DIGITS, RunningService, everlearn, learn, wait_for

Digits = list[tuple[list[float], str]]

POOR = (
    DIGITS
    + "experts = ['mlp']\n[learning]\nrehearse = 0\nwarm_up = 0\naverage = 0.0\noptimizer = { name = 'adam', lr = 3e-5 }\n"
)
SHAPING: dict[str, Any] = {
    "learning": {
        "rehearse": 4,
        "rehearsal": "mixed",
        "average": 0.97,
        "step_items": 4,
        "drift": "adwin",
        "optimizer": {"name": "adam", "lr": 0.001},
    }
}


def test_a_log_finds_better_settings_and_a_fork_learns_it_anew_with_them(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, POOR) as service:
        with service.client() as client:
            for start in range(0, 500, 100):
                learn(client, digits[start : start + 100])
        output = tmp_path / "tuned.toml"
        tuned = everlearn("tune", "--data", str(service.data), "--output", str(output), "--jobs", "2", COLUMNS="200")
        assert tuned.returncode == 0, tuned.stderr
        low = re.search(r"better by ([+-]\d\.\d+) to", tuned.stdout)
        assert low, tuned.stdout
        assert float(low[1]) > 0.02
        learning = tomllib.loads(output.read_text())["learning"]
        assert learning["optimizer"]["lr"] > 0.00003 or learning["rehearse"] > 0
        forked = everlearn("fork", "--data", str(service.data), "--to", str(tmp_path / "new" / "data"))
        assert forked.returncode == 0, forked.stderr
        assert "copied 500 feedback items" in forked.stderr
        before = accuracy(service, digits[500:700])
        service.stop()
    with RunningService(tmp_path / "new", output.read_text()) as anew:
        assert accuracy(anew, digits[500:700]) > before + 0.05


def accuracy(service: RunningService, items: Digits) -> float:
    """Return the accuracy of what has learned the whole log on items that it has not seen."""
    with service.client() as client:
        wait_for(lambda: client.get("/model").json()["applied_seq"] == 500, "the log to be learned")
        answers = client.post("/predict", json={"instances": [instance for instance, _ in items]}).json()["predictions"]
    return float(np.mean([answer["label"] == label for answer, (_, label) in zip(answers, items, strict=True)]))


def test_a_log_that_is_too_short_is_told_and_a_fork_overwrites_nothing(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        with service.client() as client:
            learn(client, digits[:3])
        service.stop()
    tuned = everlearn("tune", "--data", str(service.data), "--output", str(tmp_path / "t.toml"))
    assert tuned.returncode == 78
    assert "the log has 3 items to compare settings by" in tuned.stderr
    assert not (tmp_path / "t.toml").exists()
    forked = everlearn("fork", "--data", str(service.data), "--to", str(service.data))
    assert forked.returncode == 78
    assert "is there already, and not empty" in forked.stderr


def test_every_single_change_changes_one_recorded_setting() -> None:
    for change in single(SHAPING):
        made = changed(SHAPING, change)
        assert len(change) == 1
        assert made != SHAPING
        assert made["learning"].keys() == SHAPING["learning"].keys()


def test_the_best_changes_of_different_settings_are_tried_together() -> None:
    means = {RECORDED: 0.8, (("a", 1),): 0.85, (("a", 2),): 0.9, (("b", 1),): 0.7, (("c", 1),): 0.82}
    assert together(means, 1) == [(("a", 2), ("c", 1))]
    assert together({change: -mean for change, mean in means.items()}, -1) == [(("a", 2), ("c", 1))]


def test_what_helps_most_is_in_every_combination() -> None:
    means = {RECORDED: 0.8, (("a", 1),): 0.9, (("a", 2),): 0.801, (("b", 1),): 0.85, (("c", 1),): 0.84, (("d", 1),): 0.83}
    assert together(means, 1) == [(("a", 1), ("b", 1)), (("a", 1), ("b", 1), ("c", 1))]


def test_a_lean_that_comes_and_goes_is_not_taken_for_a_gain() -> None:
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        leans = np.repeat(rng.choice([-0.1, 0.1], size=30), 100)  # for a hundred items one model is better, then the other
        found += interval(leans + rng.normal(0, 0.3, size=3000))[0] > 0
    assert found / 200 < 0.1  # 0.28 where items are drawn one by one


def test_the_interval_holds_the_mean_and_shrinks_with_the_items() -> None:
    differences = np.random.default_rng(0).normal(0.5, 1, size=400)
    low, high = interval(differences)
    assert low < differences.mean() < high
    assert 0.12 < high - low < 0.28  # about 2 * 1.96 / sqrt(400)
