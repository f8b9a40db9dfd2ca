from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.api.test_problems import check_problem
from tests.running import DIGITS, RunningService, learn

Digits = list[tuple[list[float], str]]


def test_a_comparison_shows_what_was_learned_in_between(client: httpx.Client, digits: Digits) -> None:
    before = learn(client, digits[:30])
    after = learn(client, digits[30:230])
    answer = client.get(f"/versions/{before['model_version']}/compare/{after['model_version']}", params={"items": 200})
    found = answer.json()
    assert answer.status_code == 200, answer.text
    over = found["over"]
    assert (over["items"], over["last_seq"]) == (200, after["log_seq"])
    assert over["seen"] == {"before": 0, "after": 200}
    assert "may have learned from" in over["note"]
    assert found["metric"] == "accuracy"
    assert found["metrics"]["accuracy"]["after"] > found["metrics"]["accuracy"]["before"]
    assert found["metrics"]["log_loss"]["after"] < found["metrics"]["log_loss"]["before"]
    assert sum(row["items"] for row in found["by_class"].values()) == 200
    assert sum(row["items"] * row["after"] for row in found["by_class"].values()) == pytest.approx(
        200 * found["metrics"]["accuracy"]["after"], abs=0.01
    )


def test_flips_are_the_items_that_are_answered_otherwise(client: httpx.Client, digits: Digits) -> None:
    before = learn(client, digits[:10])["model_version"]
    sent = learn(client, digits[10:200])
    found = client.get(f"/versions/{before}/compare/{sent['model_version']}", params={"items": 190}).json()
    labels = dict(zip([accepted["seq"] for accepted in sent["accepted"]], [label for _, label in digits[10:200]], strict=True))
    assert found["flipped"] >= len(found["flips"]) > 0
    for flip in found["flips"]:
        assert flip["label"] == labels[flip["seq"]]
        assert flip["before"] != flip["after"]
    right = sum(flip["after"] == flip["label"] for flip in found["flips"])
    assert right > len(found["flips"]) / 2


def test_a_version_does_not_differ_from_itself(client: httpx.Client, digits: Digits) -> None:
    number = learn(client, digits[:20])["model_version"]
    found = client.get(f"/versions/{number}/compare/{number}").json()
    assert found["flipped"] == 0
    assert all(row["before"] == row["after"] for row in [*found["metrics"].values(), *found["by_class"].values()])
    assert all(row["difference"] == 0 and row["before"] == row["after"] for row in found["modules"].values())


def test_the_norms_say_how_far_each_module_moved_also_where_classes_came(client: httpx.Client, digits: Digits) -> None:
    number = learn(client, digits[:60])["model_version"]
    found = client.get(f"/versions/0/compare/{number}").json()
    assert found["metrics"]["accuracy"]["before"] == 0  # before the first class
    assert all(flip["before"] is None for flip in found["flips"])
    assert found["modules"]
    for moved in found["modules"].values():
        assert moved["difference"] > 0
        assert abs(moved["after"] - moved["before"]) <= moved["difference"] + 1e-5


def test_a_regression_is_compared_by_its_errors(tmp_path: Path) -> None:
    config = DIGITS.replace("classification", "regression").replace("64", "1")
    with RunningService(tmp_path, config) as service, service.client() as client:
        number = learn(client, [([float(n % 10)], 2.0 * (n % 10)) for n in range(100)])["model_version"]
        found = client.get(f"/versions/0/compare/{number}").json()
    assert found["metric"] == "mae"
    assert found["metrics"]["mae"]["after"] < found["metrics"]["mae"]["before"]
    assert (found["by_class"], found["flipped"], found["flips"]) == (None, 0, [])


def test_a_version_that_is_not_there_is_404_and_one_whose_checkpoint_has_gone_is_410(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS + "[store]\ncheckpoints = 2\n") as service, service.client() as client:
        for item in digits[:4]:
            newest = learn(client, [item])["model_version"]
        check_problem(client.get(f"/versions/0/compare/{newest + 1}"), 404, "not-found")
        for pair in (f"1/compare/{newest}", f"{newest}/compare/1"):
            answer = client.get(f"/versions/{pair}")
            check_problem(answer, 410, "checkpoint-gone")
            assert "version 1 has no checkpoint, see its `stored`" in answer.json()["detail"]
        assert client.get(f"/versions/0/compare/{newest}").status_code == 200


@pytest.mark.parametrize("items", [0, 5001, "all"])
def test_the_number_of_items_is_bounded(client: httpx.Client, items: object) -> None:
    check_problem(client.get("/versions/0/compare/0", params={"items": items}), 422, "invalid")  # type: ignore[dict-item]
