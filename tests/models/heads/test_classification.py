from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from models.errors import LabelError
from models.heads.classification import Classification


def grown(*labels: str) -> Classification:
    """A plain head with random weights."""
    head = Classification(4, experts=["linear"])
    head.admit(labels)
    torch.nn.init.normal_(head.experts.linear.weight, generator=torch.Generator().manual_seed(0))
    return head


def mixed(*labels: str) -> Classification:
    """A head of all experts that has seen some items of each label."""
    head = Classification(4, hidden=[8])
    head.admit(labels)
    for seed in range(3):
        features = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed))
        head.observe(features, head(features), labels, torch.ones(len(features)))
    return head


def test_a_head_without_classes_is_not_ready() -> None:
    assert not Classification(4).ready
    assert grown("a").ready
    assert Classification(4, classes=["a", "b"]).labels == ["a", "b"]


def test_new_classes_come_in_the_order_of_their_labels_and_keep_old_weights() -> None:
    head = grown("b", "a")
    before = head.experts.linear.weight.detach().clone()
    head.admit(["a", "c", "b", "d", "c"])
    assert head.labels == ["b", "a", "c", "d"]
    assert torch.equal(head.experts.linear.weight[:2], before)
    assert (head.experts.linear.weight[2:] == 0).all()


def test_a_closed_head_takes_its_declared_labels_only() -> None:
    head = Classification(4, labels="closed", classes=["a", "b"])
    assert head.parse_label("a") == "a"
    with pytest.raises(LabelError, match="'c' is not one of the declared labels: a, b"):
        head.parse_label("c")


def test_an_integer_label_is_its_decimal_string() -> None:
    assert Classification(4).parse_label(-17) == "-17"


def test_more_classes_than_allowed_are_refused_before_any_change() -> None:
    head = Classification(4, max_classes=2)
    with pytest.raises(LabelError, match="max_classes = 2"):
        head.admit(["a", "b", "c"])
    assert head.labels == []


def test_the_loss_is_the_cross_entropy_of_each_item() -> None:
    head = grown("a", "b")
    features, fresh = torch.randn(3, 4), torch.tensor([True, False, False])
    expected = F.cross_entropy(head.experts.linear(features), torch.tensor([0, 1, 1]), reduction="none")
    assert torch.allclose(head.loss(features, ["a", "b", "b"], fresh), expected)


def test_beside_others_a_linear_expert_learns_from_new_items_only() -> None:
    head = mixed("a", "b")
    features, fresh = torch.randn(3, 4), torch.tensor([True, False, False])
    head.loss(features, ["a", "b", "b"], fresh).mean().backward()
    together = head.experts.linear.weight.grad
    assert together is not None
    alone = torch.autograd.grad(
        F.cross_entropy(head.experts.linear(features[:1]), torch.tensor([0])), head.experts.linear.weight
    )[0]
    assert torch.allclose(together, alone, atol=1e-6)


def test_an_item_of_an_unknown_class_is_wrong_and_has_no_log_loss() -> None:
    head = grown("a", "b")
    outputs = torch.tensor([[[2.0, 1.0]], [[2.0, 1.0]]]).log_softmax(2)
    scores = head.scores(outputs, ["a", "new"])
    assert scores["accuracy"].tolist() == [1, 0]
    assert scores["log_loss"].isnan().tolist() == [False, True]
    assert Classification(4).scores(None, ["a", "b"])["accuracy"].tolist() == [0, 0]


def test_answers_are_most_probable_first_and_cut_to_top_k() -> None:
    head = grown("a", "b", "c")
    outputs = torch.tensor([[[0.0, 2.0, 1.0]]]).log_softmax(2)
    (whole,) = head.answers(outputs, None)
    (cut,) = head.answers(outputs, 2)
    (many,) = head.answers(outputs, 99)
    assert whole["label"] == "b"
    assert list(whole["scores"]) == ["b", "c", "a"]
    assert sum(whole["scores"].values()) == pytest.approx(1)
    assert list(cut["scores"].items()) == list(whole["scores"].items())[:2]
    assert many == whole


@pytest.mark.parametrize("classes", [[], ["x"], ["a", "b", "c", "d"]])
def test_a_checkpoint_brings_its_classes_whatever_the_head_had(classes: list[str]) -> None:
    source = mixed("ä", "b")
    target = Classification(4, hidden=[8], classes=classes)
    target.load_state_dict(source.state_dict())
    features = torch.randn(5, 4)
    assert target.labels == ["ä", "b"]
    assert torch.equal(target(features), source(features))


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_tells_at_once_which_classes_each_expert_can_speak_of(assign: bool) -> None:
    source, target = mixed("old", "new"), mixed("old", "new")
    features = torch.randn(2000, 4)
    source.observe(features, source(features), ["new"] * 2000, torch.ones(len(features)))
    assert not torch.equal(target.awake, source.awake)
    target.load_state_dict(source.state_dict(), assign=assign)
    assert torch.equal(target.awake, source.awake)
    assert torch.equal(target(features[:5]), source(features[:5]))


def test_the_engine_can_take_a_checkpoint_by_assignment() -> None:
    source, target = grown("a", "b"), Classification(4, experts=["linear"], classes=["a"])
    tensors = source.state_dict()
    target.load_state_dict(tensors, assign=True)
    assert target.labels == ["a", "b"]
    assert target.experts.linear.weight.data_ptr() == tensors["experts.linear.weight"].data_ptr()


def test_predicting_changes_nothing() -> None:
    head = mixed("a", "b", "c")
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.answers(head(torch.randn(3, 4)), None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


def test_a_class_that_stays_away_is_left_to_the_experts_that_rehearse() -> None:
    head = mixed("old", "new")
    features = torch.randn(2000, 4)
    head.observe(features, head(features), ["new"] * 2000, torch.ones(len(features)))
    with torch.no_grad():
        head.experts.linear.bias.copy_(torch.tensor([-50.0, 50.0]))  # it would rule the old class out
        mlp, linear, additive, neighbours = head(features[:5]).unbind(1)
    for expert in (linear, additive, neighbours):
        assert torch.allclose(expert[:, 0], mlp[:, 0], atol=1e-4)


def test_what_is_kept_of_an_answer_judges_as_the_head_would_have() -> None:
    head = mixed("a", "b", "c")
    outputs = head(torch.randn(3, 4, generator=torch.Generator().manual_seed(9)))
    labels = ["a", "c", "new"]
    scores = head.scores(outputs, labels)
    for row, (answer, label) in enumerate(zip(head.answers(outputs, None), labels, strict=True)):
        judged = head.judge(head.kept(answer), label)
        assert judged == pytest.approx({name: column[row].item() for name, column in scores.items()}, nan_ok=True)


def test_what_was_not_kept_of_an_answer_is_spread_over_the_other_classes() -> None:
    head = mixed(*map(str, range(40)))
    outputs = head(torch.randn(1, 4, generator=torch.Generator().manual_seed(9)))
    for top_k in (None, 3):
        (answer,) = head.answers(outputs, top_k)
        kept = head.kept(answer)
        assert len(kept["scores"]) == (top_k or 10)
        best, rest = next(iter(answer["scores"])), 1 - sum(kept["scores"].values())
        other = next(label for label in head.labels if label not in kept["scores"])
        assert head.judge(kept, best)["log_loss"] == pytest.approx(-math.log(answer["scores"][best]))
        assert head.judge(kept, other)["log_loss"] == pytest.approx(-math.log(rest / (40 - len(kept["scores"]))))


@pytest.mark.parametrize(("balance", "label"), [(0.0, "often"), (1.0, "rare")])
def test_balance_answers_as_if_all_classes_were_equally_frequent(balance: float, label: str) -> None:
    head = Classification(1, experts=["linear"], balance=balance)
    labels = ["often"] * 95 + ["rare"] * 5
    head.admit(labels)
    head.observe(torch.zeros(100, 1), None, labels, torch.ones(100))
    with torch.no_grad():
        head.experts.linear.bias.copy_(torch.tensor([0.85, 0.15]).log())
    (answer,) = head.answers(head(torch.zeros(1, 1)), None)
    assert answer["label"] == label
    assert sum(answer["scores"].values()) == pytest.approx(1)
    assert next(iter(answer["scores"])) == label
    if balance:  # each class is taken to have had ten items more
        assert answer["scores"]["rare"] == pytest.approx((0.15 / 15) / (0.85 / 105 + 0.15 / 15), rel=0.02)


def test_balance_favours_no_class_of_which_nothing_is_known() -> None:
    plain, balanced = (Classification(1, experts=["linear"], balance=balance, classes=["a", "never"]) for balance in (0.0, 1.0))
    for head in (plain, balanced):
        head.observe(torch.zeros(100, 1), None, ["a"] * 100, torch.ones(100))
        with torch.no_grad():
            head.experts.linear.bias.copy_(torch.tensor([0.9, 0.1]).log())
    outputs = plain(torch.zeros(1, 1))
    assert balanced.answers(outputs, None)[0]["scores"] == pytest.approx(plain.answers(outputs, None)[0]["scores"])


def test_the_shares_of_the_classes_fade() -> None:
    head = Classification(1, experts=["linear"])
    head.admit(["old", "new"])
    for label in ("old", "new"):
        for _ in range(40):
            head.observe(torch.zeros(100, 1), None, [label] * 100, torch.ones(100))
    assert head.shares[0] < 0.2 * head.shares[1]
