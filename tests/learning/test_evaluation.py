from __future__ import annotations

import torch

from service.learning.evaluation import Prequential


def summarise(columns: dict[str, torch.Tensor]) -> dict[str, float]:
    return {"accuracy": columns["accuracy"].nanmean().item()}


def record(prequential: Prequential, values: list[float], classes: list[int] | None = None) -> None:
    scores = {"accuracy": torch.tensor(values), "target": torch.tensor(classes or values)}
    prequential.record(scores, "accuracy", classes or [])


def test_means_are_over_everything_faded_and_over_the_window() -> None:
    prequential = Prequential(window=4, fading=0.5)
    record(prequential, [0, 0, 0, 0])
    record(prequential, [1, 1])
    metrics = prequential.metrics(["accuracy"], summarise)
    faded = (1 + 0.5) / sum(0.5**age for age in range(6))
    assert metrics == {
        "items": 6,
        "accuracy": 0.333333,
        "faded": {"accuracy": round(faded, 6)},
        "window": {"items": 4, "accuracy": 0.5},
    }


def test_an_item_of_which_a_score_says_nothing_counts_not_for_it() -> None:
    prequential = Prequential(window=4, fading=0.9)
    scores = {"accuracy": torch.tensor([1.0, 0.0]), "log_loss": torch.tensor([0.5, torch.nan])}
    prequential.record({**scores, "target": torch.tensor([0, 1])}, "accuracy", [0, 1])
    metrics = prequential.metrics(["accuracy", "log_loss"], summarise)
    assert metrics["log_loss"] == metrics["faded"]["log_loss"] == 0.5
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == 0.5


def test_a_score_that_says_nothing_at_all_is_none() -> None:
    prequential = Prequential(window=4, fading=0.9)
    scores = {"accuracy": torch.tensor([0.0]), "log_loss": torch.tensor([torch.nan])}
    prequential.record({**scores, "target": torch.tensor([0])}, "accuracy", [0])
    assert prequential.metrics(["log_loss"], summarise)["log_loss"] is None


def test_each_class_has_its_own_mean() -> None:
    prequential = Prequential(window=4, fading=0.9)
    record(prequential, [1, 0, 1], [0, 0, 2])
    record(prequential, [1], [1])
    assert prequential.by_class(["a", "b", "c"], "accuracy") == {
        "a": {"items": 2, "accuracy": 0.5},
        "b": {"items": 1, "accuracy": 1.0},
        "c": {"items": 1, "accuracy": 1.0},
    }


def test_it_goes_on_from_its_saved_state() -> None:
    first, second = Prequential(window=3, fading=0.9), Prequential(window=3, fading=0.9)
    record(first, [1, 0, 1, 1], [0, 1, 1, 0])
    second.load(first.tensors())
    for prequential in (first, second):
        record(prequential, [0, 1], [2, 0])
    assert first.metrics(["accuracy"], summarise) == second.metrics(["accuracy"], summarise)
    assert first.by_class("abc", "accuracy") == second.by_class("abc", "accuracy")
