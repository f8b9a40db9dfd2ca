from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.base import Batch, Encoder, OnlineModel
from models.errors import NotExportable
from models.exporting import check, export
from models.heads.regression import Regression
from models.inputs import Vector
from models.registry import build_model
from service.learning.update import Item, LearningState
from service.settings import LearningSettings

VECTOR = {"input": {"kind": "vector", "length": 3}, "encoder": {"name": "tabular"}}


def learned(model: OnlineModel, labels: list[Any]) -> list[list[float]]:
    """Have a model learn an item per label; return what it learned from."""
    instances = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0)).tolist()
    state = LearningState(model, LearningSettings())
    items = {seq: Item(instance, label) for seq, (instance, label) in enumerate(zip(instances, labels, strict=True), 1)}
    for first in range(1, len(labels), 10):
        state.update(state.plan([seq for seq in range(first, first + 10) if seq in items], items), items)
    model.eval()
    return instances


@pytest.mark.parametrize(
    ("head", "labels"),
    [
        ({"name": "classification"}, ["a", "b", "c", "b"] * 10),
        ({"name": "classification", "experts": ["linear"], "balance": 0.5}, ["a", "a", "b"] * 10),
        ({"name": "multilabel"}, [["a"], ["a", "b"], []] * 10),
        ({"name": "regression"}, [1.0, 2.5, -3.0] * 10),
        ({"name": "recognition"}, ["a", "b", "c"] * 10),
    ],
)
def test_a_program_says_what_the_model_says_of_any_number_of_instances(head: dict[str, Any], labels: list[Any]) -> None:
    model = build_model({**VECTOR, "head": head})
    instances = learned(model, labels)
    run = export(model, instances).module()
    for count in (1, 2, 3, 30):
        batch = dict(model.collate(instances[:count]))
        with torch.no_grad():
            expected = model.head.as_tensors(model(batch))
        found = run(batch)
        for name, tensor in expected.items():
            assert tensor.shape[0] == count
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)


def test_what_a_model_answers_is_what_its_tensors_say() -> None:
    model = build_model({**VECTOR, "head": {"name": "regression"}})
    instances = learned(model, [1.0, 2.5, -3.0] * 10)
    outputs = model(model.collate(instances))
    tensors = model.head.as_tensors(outputs)
    for row, answer in enumerate(model.head.answers(outputs, None)):
        assert answer == {name: tensor[row].item() for name, tensor in tensors.items()}


class Deciding(Encoder):
    """Looks at the instances themselves to decide what to do."""

    width = 3

    def forward(self, batch: Batch) -> Tensor:
        numbers = batch["numbers"].float()
        return -numbers if numbers[0, 0] > 0 else numbers


class Unfollowed(Encoder):
    """Goes through something that torch does not see."""

    width = 3

    def forward(self, batch: Batch) -> Tensor:
        return torch.from_numpy(batch["numbers"].numpy() * 2).float()


def made(encoder: Encoder) -> OnlineModel:
    return OnlineModel(input=Vector(length=3), encoder=encoder, head=Regression(3, experts=["linear"]))


def test_a_model_that_decides_by_its_instances_is_refused() -> None:
    decided, otherwise = [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]
    with pytest.raises(NotExportable, match="depends on the instances"):
        export(made(Deciding()), [decided, otherwise])


def test_a_model_that_torch_can_not_follow_is_refused_in_one_line() -> None:
    with pytest.raises(NotExportable, match=r"torch\.export can't follow the model: \w+: [^\n]+$"):
        export(made(Unfollowed()), [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])


def test_a_head_without_classes_and_one_without_tensors_are_refused() -> None:
    with pytest.raises(NotExportable, match="no class is known yet"):
        export(build_model({**VECTOR, "head": {"name": "classification"}}), [[1.0, 2.0, 3.0]])
    text = build_model({"input": {"kind": "text"}, "encoder": {"name": "reader"}, "head": {"name": "generation"}})
    with pytest.raises(NotExportable, match="the answers of the head Generation are no plain tensors"):
        export(text, [b"one", b"two"])


def test_a_program_that_says_something_else_is_found() -> None:
    model = build_model({**VECTOR, "head": {"name": "regression"}})
    instances = learned(model, [1.0, 2.0] * 10)
    other = nn.Parameter(torch.tensor(1e-3))

    def run(batch: Batch) -> dict[str, Tensor]:
        return {name: tensor + other for name, tensor in model.head.as_tensors(model(batch)).items()}

    with pytest.raises(NotExportable, match="has other value than the model"):
        check(model, instances, run)
