from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models.errors import LabelError
from models.heads.linear import LinearClassifier


def grown(*labels: str) -> LinearClassifier:
    head = LinearClassifier(4)
    head.admit(labels)
    return head


def test_a_head_without_classes_is_not_ready() -> None:
    assert not LinearClassifier(4).ready
    assert grown("a").ready
    assert LinearClassifier(4, classes=["a", "b"]).labels == ["a", "b"]


def test_new_classes_come_in_the_order_of_their_labels_and_keep_old_logits() -> None:
    head = grown("b", "a")
    torch.nn.init.normal_(head.weight)
    features = torch.randn(3, 4)
    before = head(features)
    head.admit(["a", "c", "b", "d", "c"])
    assert head.labels == ["b", "a", "c", "d"]
    after = head(features)
    assert torch.allclose(after[:, :2], before)  # a matrix product of another shape rounds otherwise
    assert (after[:, 2:] == 0).all()


def test_a_closed_head_takes_its_declared_labels_only() -> None:
    head = LinearClassifier(4, labels="closed", classes=["a", "b"])
    assert head.parse_label("a") == "a"
    with pytest.raises(LabelError, match="'c' is not one of the declared labels: a, b"):
        head.parse_label("c")


def test_an_integer_label_is_its_decimal_string() -> None:
    assert LinearClassifier(4).parse_label(-17) == "-17"


def test_more_classes_than_allowed_are_refused_before_any_change() -> None:
    head = LinearClassifier(4, max_classes=2)
    with pytest.raises(LabelError, match="max_classes = 2"):
        head.admit(["a", "b", "c"])
    assert head.labels == []


def test_the_loss_is_the_cross_entropy_of_each_item() -> None:
    head = grown("a", "b")
    outputs = torch.randn(3, 2)
    assert torch.allclose(
        head.loss(outputs, ["a", "b", "b"]), F.cross_entropy(outputs, torch.tensor([0, 1, 1]), reduction="none")
    )


def test_an_item_of_an_unknown_class_is_wrong_and_has_no_log_loss() -> None:
    head = grown("a", "b")
    scores = head.scores(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), ["a", "new"])
    assert scores["accuracy"].tolist() == [1, 0]
    assert scores["log_loss"].isnan().tolist() == [False, True]
    assert LinearClassifier(4).scores(torch.zeros(2, 0), ["a", "b"])["accuracy"].tolist() == [0, 0]


def test_answers_are_most_probable_first_and_cut_to_top_k() -> None:
    head = grown("a", "b", "c")
    outputs = torch.tensor([[0.0, 2.0, 1.0]])
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
    source = grown("ä", "b")
    torch.nn.init.normal_(source.weight)
    target = LinearClassifier(4, classes=classes)
    target.load_state_dict(source.state_dict())
    assert target.labels == ["ä", "b"]
    assert torch.equal(target.weight, source.weight)


def test_the_engine_can_take_a_checkpoint_by_assignment() -> None:
    source, target = grown("a", "b"), grown("a")
    tensors = source.state_dict()
    target.load_state_dict(tensors, assign=True)
    assert target.labels == ["a", "b"]
    assert target.weight.data_ptr() == tensors["weight"].data_ptr()
