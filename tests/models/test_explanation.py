from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from models.base import OnlineModel
from models.errors import LabelError, NotExplainable
from models.explanation import explain, shapley
from models.inputs import JsonKind
from models.registry import build_model
from service.learning.update import Item, LearningState
from service.settings import LearningSettings
from tests.models.test_patches import encoded, scene

INSTANCES = 200

VECTOR = {"kind": "vector", "length": 12}
RECORD = {"kind": "record", "fields": {"age": "number", "city": "string", "member": "boolean", "height": "number"}}
PICTURE = {"kind": "image", "size": 32}


def game(present: Tensor) -> Tensor:
    """Return what coalitions of players are worth that help and hinder each other."""
    weights = torch.linspace(-2, 3, present.shape[1], dtype=torch.float64)
    alone = present.double() @ weights
    return alone + 2 * (present[:, 0] & present[:, 1]).double() - (present.sum(1) > 3).double() + 0.5


def by_definition(players: int) -> Tensor:
    """Return the Shapley values of the game as the mean over all orders of coming."""
    added = torch.zeros(players, dtype=torch.float64)
    for order in itertools.permutations(range(players)):
        come = torch.zeros(1, players, dtype=torch.bool)
        for player in order:
            before = game(come)
            come[0, player] = True
            added[player] += (game(come) - before).item()
    return added / math.factorial(players)


def learned(specification: dict[str, object], instances: list[object], labels: list[object]) -> OnlineModel:
    """Return a model that has learned from instances, as it is served."""
    state = LearningState(build_model(specification).eval(), LearningSettings(step_items=8, warm_up=0, rehearse=1))
    kind = state.model.input
    items = {
        seq: Item(kind.prepare(instance), label)  # type: ignore[arg-type]
        for seq, (instance, label) in enumerate(zip(instances, labels, strict=True), start=1)
    }
    state.update(state.plan(list(items), items), items)
    return state.model


def vectors() -> list[list[float]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(INSTANCES, 12, generator=generator).tolist()


def records() -> list[dict[str, object]]:
    rows = [
        {"age": float(n % 70), "city": ["Rome", "Oslo", "Lima"][n % 3], "member": n % 2 == 0, "height": None if n % 5 else 1.8}
        for n in range(INSTANCES)
    ]
    return [{name: value for name, value in row.items() if (n + len(name)) % 7 or name == "age"} for n, row in enumerate(rows)]


def head(name: str) -> dict[str, object]:
    return {"name": name, "hidden": [16]}


CASES = {
    "vector": ({"input": VECTOR, "encoder": {"name": "tabular"}, "head": head("classification")}, vectors, "cat"),
    "vector, regression": ({"input": VECTOR, "encoder": {"name": "tabular"}, "head": head("regression")}, vectors, None),
    "record": ({"input": RECORD, "encoder": {"name": "tabular"}, "head": head("classification")}, records, "cat"),
    "record, regression": ({"input": RECORD, "encoder": {"name": "tabular"}, "head": head("regression")}, records, None),
    "image": (
        {
            "input": PICTURE,
            "encoder": {"name": "torchvision", "backbone": "squeezenet1_1", "weights": "none"},
            "head": {"name": "classification", "experts": ["linear", "neighbours"]},
        },
        lambda: [encoded(scene(n)) for n in range(INSTANCES)],
        "cat",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_attributions_add_up_to_the_explained_value_less_the_base_value(case: str) -> None:
    specification, make, label = CASES[case]
    instances = make()
    labels = [float(n % 3) if label is None else ["cat", "dog", "owl"][n % 3] for n in range(INSTANCES)]
    model = learned(specification, instances, labels)
    evaluations = 98 if case == "image" else 256
    for instance in instances:
        found = explain(model, instance, label, evaluations=evaluations, batch=64).attributions
        assert found.evaluations <= evaluations
        assert found.base + found.values.sum().item() == pytest.approx(found.explained, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("players", [1, 2, 5, 7])
def test_few_parts_are_shared_out_exactly(players: int) -> None:
    def padded(present: Tensor) -> Tensor:  # the game has two players at least: those that are too many do nothing
        return game(torch.cat([present, present.new_zeros(len(present), max(0, 2 - players))], 1))

    found = shapley(padded, players, evaluations=2**players)
    assert (found.method, found.evaluations) == ("exact", 2**players)
    if players > 1:
        torch.testing.assert_close(found.values, by_definition(players))


def test_the_sampled_values_come_close_to_the_exact_ones_and_closer_with_more_evaluations() -> None:
    exact = shapley(game, 10, evaluations=1024).values
    errors = [(shapley(game, 10, evaluations=n).values - exact).abs().max().item() for n in (20, 100, 1000)]
    assert errors[2] < errors[1] < 0.2
    assert errors[2] < 0.1


def test_a_sum_is_shared_out_exactly_by_one_pair_of_orders() -> None:
    weights = torch.linspace(-1, 1, 30, dtype=torch.float64)
    found = shapley(lambda present: present.double() @ weights, 30, evaluations=60)
    assert (found.method, found.evaluations) == ("permutations", 60)
    torch.testing.assert_close(found.values, weights)


@pytest.mark.parametrize("parts", [3, 50, 501, 10_000])
@pytest.mark.parametrize("evaluations", [4, 101, 512])
def test_the_evaluations_are_bounded_however_many_parts_there_are(parts: int, evaluations: int) -> None:
    asked = 0

    def value(present: Tensor) -> Tensor:
        nonlocal asked
        asked += len(present)
        return present.double().sum(1)

    found = shapley(value, parts, evaluations=evaluations)
    assert asked == found.evaluations <= evaluations
    assert found.values.sum().item() == pytest.approx(parts)
    torch.testing.assert_close(found.values, torch.ones(parts, dtype=torch.float64))


def test_the_same_question_has_the_same_answer() -> None:
    first, second = (shapley(game, 12, evaluations=100) for _ in range(2))
    assert torch.equal(first.values, second.values)


def test_nothing_to_attribute_to_is_an_explanation_too() -> None:
    found = shapley(lambda present: torch.full((len(present),), 3.0), 0, evaluations=4)
    assert (found.values.tolist(), found.base, found.explained) == ([], 3.0, 3.0)


def test_what_decides_the_label_gets_the_credit() -> None:
    instances = vectors()
    labels = ["high" if numbers[3] > 0 else "low" for numbers in instances]
    model = learned(CASES["vector"][0], instances, labels)
    credits = [
        explain(model, instance, evaluations=512, batch=64).attributions.values.abs().argmax().item()
        for instance in instances[:20]
    ]
    assert credits.count(3) > 12


def test_the_predicted_label_is_explained_where_none_is_asked_for() -> None:
    instances = vectors()
    model = learned(CASES["vector"][0], instances, ["cat", "dog"] * 100)
    outputs = model(model.collate(instances[:1]))
    assert explain(model, instances[0], evaluations=64, batch=64).label == model.head.answers(outputs, 1)[0]["label"]


def test_labels_that_the_head_does_not_have_are_refused() -> None:
    classifier = learned(CASES["vector"][0], vectors(), ["cat", "dog"] * 100)
    with pytest.raises(LabelError, match="owl"):
        explain(classifier, vectors()[0], "owl", evaluations=64, batch=64)
    regression = learned(CASES["vector, regression"][0], vectors(), [1.0, 2.0] * 100)
    with pytest.raises(LabelError, match="leave the label out"):
        explain(regression, vectors()[0], "owl", evaluations=64, batch=64)


def test_the_only_class_needs_no_reason() -> None:
    model = learned(CASES["vector"][0], vectors(), ["cat"] * INSTANCES)
    found = explain(model, vectors()[0], evaluations=64, batch=64).attributions
    assert found.base == found.explained == found.values.abs().max().item() == 0


def test_a_kind_without_parts_says_so() -> None:
    model = learned(CASES["vector"][0], vectors(), ["cat", "dog"] * 100)
    model.input = JsonKind()  # type: ignore[assignment]
    with pytest.raises(NotExplainable, match="no parts"):
        explain(model, vectors()[0], evaluations=64, batch=64)
