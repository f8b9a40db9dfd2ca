from __future__ import annotations

import math

import pytest
import torch

from models.errors import LabelError
from models.heads.regression import Regression


def test_before_any_label_the_answer_is_zero_and_then_the_mean() -> None:
    head = Regression(3, experts=["linear"])
    features = torch.ones(1, 3)
    assert head.answers(head(features), None) == [{"value": 0.0, "low": None, "high": None}]
    head.admit([10.0, 20.0])
    assert head.answers(head(features), None) == [{"value": 15.0, "low": None, "high": None}]


def test_scores_are_errors_on_the_scale_of_the_label() -> None:
    head = Regression(3)
    head.admit([10.0, 20.0])
    scores = head.scores(head(torch.ones(2, 3)), [14.0, 18.0])
    assert scores["mae"].tolist() == pytest.approx([1, 3])
    assert scores["mse"].tolist() == pytest.approx([1, 9])


@pytest.mark.parametrize("label", [math.nan, math.inf, 1e31, -1e300])
def test_a_label_that_can_not_be_learned_from_is_refused(label: float) -> None:
    with pytest.raises(LabelError):
        Regression(3).parse_label(label)


def test_one_wild_label_gives_a_bounded_loss() -> None:
    head = Regression(3)
    head.admit([1.0, 2.0, 3.0])
    losses = head.loss(torch.ones(2, 3), [2.0, 1e30], torch.tensor([True, True]))
    assert losses.isfinite().all()
    assert losses.max() <= 10 * len(head.experts)


def test_it_learns_a_line() -> None:
    generator = torch.Generator().manual_seed(0)
    head = Regression(2, experts=["linear"])
    features = torch.randn(200, 2, generator=generator)
    labels = (1000 + 50 * features[:, 0] - 20 * features[:, 1]).tolist()
    head.admit(labels)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(features, labels, torch.ones(200, dtype=torch.bool)).mean().backward()
        optimizer.step()
    assert head.scores(head(features), labels)["mae"].mean() < 3


def test_the_better_expert_gets_the_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    head = Regression(2, experts=["linear", "neighbours"])
    for _ in range(20):
        features = torch.randn(10, 2, generator=generator)
        labels = features.square().sum(1).tolist()  # no line, but near things are alike
        head.admit(labels)
        head.observe(features, head(features), labels, torch.ones(len(features)))
    assert head.describe()["neighbours"] > 0.9
    assert sum(head.describe().values()) == pytest.approx(1, abs=1e-3)


def test_what_is_kept_of_an_answer_judges_as_the_head_would_have() -> None:
    head = Regression(3)
    head.admit([10.0, 20.0])
    outputs = head(torch.ones(1, 3))
    for label in (12.0, 90.0):
        (answer,) = head.answers(outputs, None)
        scores = {name: column.item() for name, column in head.scores(outputs, [label]).items()}
        assert head.judge(head.kept(answer), label) == pytest.approx(scores, nan_ok=True)
        head.observe(torch.ones(1, 3), outputs, [label], torch.ones(1))
