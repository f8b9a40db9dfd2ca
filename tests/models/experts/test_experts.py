"""The experts that count, and the one that reads descriptions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from models.base import OnlineModel
from models.errors import LabelError
from models.experts.base import Expert
from models.experts.bayes import Bayes
from models.experts.bilinear import MOST_WORDS, Bilinear, Vectors, Words
from models.experts.neighbours import ClassNeighbours
from models.experts.prototype import Prototype
from models.heads.classification import Classification
from models.registry import build_model


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def nobody(texts: object) -> torch.Tensor:
    raise AssertionError("no text encoder of the model's own is asked for")


@pytest.mark.parametrize("expert", [Bayes(4, 2), Prototype(4, 2)])
def test_one_label_makes_a_usable_class(expert: Expert) -> None:
    features = torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]])
    expert.observe(features, torch.tensor([0, 1]), torch.ones(2))
    assert expert(features + 0.1).argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("kind", [Bayes, Prototype])
def test_what_is_counted_does_not_depend_on_the_batches(kind: type[Bayes]) -> None:
    together, apart = kind(4, 3), kind(4, 3)
    features, targets = random(6, 4).abs(), torch.tensor([0, 1, 0, 2, 2, 0])
    together.observe(features, targets, torch.ones(6))
    for row in range(6):
        apart.observe(features[row : row + 1], targets[row : row + 1], torch.ones(1))
    assert torch.allclose(together(features), apart(features), atol=1e-5)


@pytest.mark.parametrize("kind", [Bayes, Prototype])
def test_a_class_that_comes_later_leaves_the_others_as_they_were(kind: type[Prototype]) -> None:
    expert = kind(4, 2)
    features = random(2, 4).abs()
    expert.observe(features, torch.tensor([0, 1]), torch.ones(2))
    before = expert.sums.clone()
    expert.resize(3)
    assert torch.equal(expert.sums[:2], before)
    assert not expert.sums[2].any()


@pytest.mark.parametrize("kind", [Bayes, Prototype])
def test_an_item_counts_by_its_weight(kind: type[Bayes]) -> None:
    weighted, repeated = kind(4, 2), kind(4, 2)
    features = random(2, 4).abs()
    weighted.observe(features, torch.tensor([0, 0]), torch.tensor([3.0, 1.0]))
    repeated.observe(features[[0, 0, 0, 1]], torch.tensor([0, 0, 0, 0]), torch.ones(4))
    assert torch.allclose(weighted(features), repeated(features), atol=1e-5)


def test_bayes_is_multinomial_naive_bayes_on_the_counts() -> None:
    expert = Bayes(3, 2)
    counts = torch.tensor([[2.0, 1.0, 1.0], [0.0, 1.0, 3.0], [4.0, 0.0, 0.0]])
    expert.observe(counts, torch.tensor([0, 1, 0]), torch.ones(3))
    sums = torch.stack([counts[0] / 4 + counts[2] / 4, counts[1] / 4])
    smoothed = sums + 0.1 * 3 / 6
    expected = 20 * (counts / 4) @ (smoothed / smoothed.sum(1, keepdim=True)).log().T + torch.tensor([3.0, 2.0]).log()
    assert torch.allclose(expert(counts), expected, atol=1e-5)


def test_a_prototype_starts_from_its_description_and_is_outweighed_by_labels() -> None:
    expert = Prototype(2, 1)
    expert.describe(0, torch.tensor([5.0, 0.0]))
    east, north = torch.eye(2)
    assert expert(east.unsqueeze(0)) > 19.9
    for _ in range(100):
        expert.observe(north.unsqueeze(0), torch.tensor([0]), torch.ones(1))
    assert expert(north.unsqueeze(0)) > 19.9


def described(*texts: str) -> Bilinear:
    torch.manual_seed(0)
    expert = Bilinear(4, len(texts), texts=Words(), aligned=False)
    for index, text in enumerate(texts):
        expert.describe(index, [text] if text else [], nobody)
    torch.nn.init.normal_(expert.weight)
    return expert


def test_scores_are_the_bilinear_form_of_instance_and_description() -> None:
    expert = described("red circle", "blue square")
    features = random(3, 4)
    rows = [expert.texts.table.weight[expert.texts.places[index, :2]].mean(0) for index in range(2)]  # type: ignore[union-attr]
    assert torch.allclose(expert(features), features @ expert.weight.T @ torch.stack(rows).T, atol=1e-5)


def test_several_descriptions_are_averaged_whatever_their_lengths() -> None:
    one, other, both = described("red"), described("a very large blue square"), described("")
    both.describe(0, ["red", "a very large blue square"], nobody)
    assert torch.allclose(both.texts(), (one.texts() + other.texts()) / 2, atol=1e-6)


def test_classes_with_labels_are_held_back_only_beside_described_ones_without() -> None:
    expert, features = described("red", "blue"), random(3, 4)
    plain = expert(features)
    expert.margin.fill_(1.5)
    expert.observe(features[:1], torch.tensor([0]), torch.ones(1))
    assert torch.allclose(plain - expert(features), torch.tensor([1.5, 0.0]))
    expert.observe(features[:1], torch.tensor([1]), torch.ones(1))
    assert torch.equal(expert(features), plain)


def test_the_margin_grows_until_it_costs_a_twentieth_of_the_labelled_items() -> None:
    expert = described("red", "blue")
    generator = torch.Generator().manual_seed(3)
    expert.observe(random(1, 4), torch.tensor([0]), torch.ones(1))
    red = F.normalize(expert.weight.T @ expert.texts()[0] - expert.weight.T @ expert.texts()[1], dim=0).detach()
    lost = []
    for _ in range(4000):
        features = (3 * red + torch.randn(4, generator=generator)).unsqueeze(0)
        lost.append(expert(features).argmax(1).item() == 1)
        expert.observe(features, torch.tensor([0]), torch.ones(1))
    assert 0.03 < sum(lost[2000:]) / 2000 < 0.07


def test_a_class_without_a_description_has_a_vector_of_its_own() -> None:
    expert = described("red", "")
    features = random(2, 4)
    F.cross_entropy(expert(features), torch.tensor([1, 1])).backward()
    assert expert.vectors.grad is not None
    assert expert.vectors.grad[1].any()
    assert not expert.vectors.grad[0].any()
    expert.describe(0, [], nobody)
    assert torch.equal(expert(features), F.linear(F.linear(features, expert.weight), expert.vectors))


def test_in_one_space_the_first_scores_are_cosines() -> None:
    expert = Bilinear(3, 1, texts=Vectors(3), aligned=True)
    expert.describe(0, ["x", "y"], lambda texts: torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])[: len(texts)])
    assert torch.allclose(expert(torch.tensor([[1.0, 0.0, 0.0]])), torch.tensor([[20 * 0.5**0.5]]))


@pytest.mark.parametrize(("texts", "says"), [(["..", ""], "has no word"), (["a b"] * 65, f"the limit is {MOST_WORDS}")])
def test_descriptions_that_say_nothing_or_too_much_are_refused(texts: list[str], says: str) -> None:
    with pytest.raises(LabelError, match=says):
        Words().check(texts)


ZERO_SHOT = {
    "input": {"kind": "vector", "length": 6},
    "encoder": {"name": "tabular", "bins": 0},
    "head": {"name": "classification", "experts": ["mlp", "linear", "bilinear", "neighbours"]},
}


def with_classes() -> OnlineModel:
    model = build_model(ZERO_SHOT)
    for name, text in (("a", "red circle"), ("b", "blue square"), ("c", "red square")):
        model.declare(name, [text])
    return model


def test_the_experts_that_do_not_know_a_class_leave_it_to_its_description() -> None:
    model = with_classes()
    head = model.head
    assert isinstance(head, Classification)
    features = random(8, model.encoder.width)
    with torch.no_grad():
        for _ in range(20):
            head.observe(features, head(features), ["a", "b"] * 4, torch.ones(len(features)))
        outputs = head(features).exp()
        described = outputs[:, head.experts.names.index("bilinear"), 2]
        for expert in outputs.unbind(1):
            assert torch.allclose(expert[:, 2], described, atol=1e-6)
            assert torch.allclose(expert.sum(1), torch.ones(8), atol=1e-5)


def test_a_class_without_labels_is_not_taught_that_it_never_comes() -> None:
    model = with_classes()
    head = model.head
    assert isinstance(head, Classification)
    features = random(2, model.encoder.width)
    head.observe(features, head(features), ["a", "b"], torch.ones(len(features)))
    head.loss(features, ["a", "a"], torch.tensor([True, True])).sum().backward()
    gradient = head.experts.mlp.bias.grad  # type: ignore[union-attr]
    assert gradient is not None
    assert gradient[:2].all()
    assert gradient[2] == 0


def test_descriptions_travel_with_the_checkpoint() -> None:
    model, other = with_classes(), build_model(ZERO_SHOT)
    model.declare("a", ["green circle", "a disc"])
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert other.head.labels == ["a", "b", "c"]
    assert other.head.descriptions == {"a": ["green circle", "a disc"], "b": ["blue square"], "c": ["red square"]}
    batch = model.collate([[float(i) for i in range(6)]])
    assert torch.equal(model(batch), other(batch))


def test_neighbours_remember_as_large_a_part_of_the_items_as_they_weigh() -> None:
    expert = ClassNeighbours(2, 2, capacity=1000)
    expert.observe(torch.rand(400, 2), torch.zeros(400, dtype=torch.int64), torch.full((400,), 0.25))
    assert 60 < int(expert.items.seen) < 140
    expert.observe(torch.rand(100, 2), torch.zeros(100, dtype=torch.int64), torch.ones(100))
    assert int(expert.items.seen) > 160
