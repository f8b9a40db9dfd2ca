from __future__ import annotations

import torch

from service.learning.evaluation import Prequential


def record(prequential: Prequential, values: list[float], classes: list[int] | None = None) -> None:
    prequential.record({"accuracy": torch.tensor(values)}, "accuracy", classes or [])


def test_means_are_over_everything_and_over_the_window() -> None:
    prequential = Prequential(window=4)
    record(prequential, [0, 0, 0, 0])
    record(prequential, [1, 1])
    metrics = prequential.metrics()
    assert metrics == {"items": 6, "accuracy": 0.333333, "window": {"items": 4, "accuracy": 0.5}}


def test_an_item_of_which_a_score_says_nothing_counts_not_for_it() -> None:
    prequential = Prequential(window=4)
    prequential.record({"accuracy": torch.tensor([1.0, 0.0]), "log_loss": torch.tensor([0.5, torch.nan])}, "accuracy", [0, 1])
    assert prequential.metrics()["log_loss"] == 0.5
    assert prequential.metrics()["accuracy"] == 0.5


def test_a_score_that_says_nothing_at_all_is_none() -> None:
    prequential = Prequential(window=4)
    prequential.record({"accuracy": torch.tensor([0.0]), "log_loss": torch.tensor([torch.nan])}, "accuracy", [0])
    assert prequential.metrics()["log_loss"] is None
    assert prequential.metrics()["window"]["log_loss"] is None


def test_each_class_has_its_own_mean() -> None:
    prequential = Prequential(window=4)
    record(prequential, [1, 0, 1], [0, 0, 2])
    record(prequential, [1], [1])
    assert prequential.by_class(["a", "b", "c"], "accuracy") == {
        "a": {"items": 2, "accuracy": 0.5},
        "b": {"items": 1, "accuracy": 1.0},
        "c": {"items": 1, "accuracy": 1.0},
    }


def test_it_goes_on_from_its_saved_state() -> None:
    first, second = Prequential(window=3), Prequential(window=3)
    record(first, [1, 0, 1, 1], [0, 1, 1, 0])
    second.load(first.tensors())
    for prequential in (first, second):
        record(prequential, [0, 1], [2, 0])
    assert first.metrics() == second.metrics()
    assert first.by_class("abc", "accuracy") == second.by_class("abc", "accuracy")
