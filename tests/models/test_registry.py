from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from models.base import Encoder, Head
from models.errors import SpecificationError
from models.inputs import InputKind
from models.registry import ENCODERS, HEADS, INPUTS, build_model, resolve, without_weights

VECTOR = {"kind": "vector", "length": 3}
MLP = {"name": "tabular", "hidden": [4]}
CLASSES = {"name": "classification"}

KINDS = ", ".join(sorted(INPUTS))


def spec(**parts: Any) -> dict[str, Any]:
    return {"input": VECTOR, "encoder": MLP, "head": CLASSES, **parts}


def test_the_same_seed_gives_the_same_weights_and_leaves_global_randomness_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = build_model(spec(), seed=5)
    assert torch.equal(torch.rand(1), expected)
    second, other = build_model(spec(), seed=5), build_model(spec(), seed=6)
    weights = [next(model.parameters()) for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_resolved_specification_names_every_default_and_stays_as_it_is() -> None:
    resolved = resolve(spec())
    options = {"bins": 16, "one_hot": 32, "buckets": 1024, "embedding": 8}
    assert resolved["encoder"] == {"name": "tabular", "hidden": [4], **options}
    assert resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ({"input": {}}, "model.input.kind", f"missing; allowed: {KINDS}"),
        ({"input": {"kind": "sound"}}, "model.input.kind", f"'sound' is not one of {KINDS}"),
        ({"input": {"kind": "vector"}}, "model.input.length", "required"),
        ({"input": {"kind": "vector", "length": 0}}, "model.input.length", "greater than 0"),
        (
            {"encoder": {"name": "tabular", "widths": [1]}},
            "model.encoder.widths",
            "allowed: bins, buckets, embedding, hidden, one_hot",
        ),
        ({"head": {"name": "classification", "experts": []}}, "model.head.experts", "at least 1"),
        ({"encoder": {"name": "torchvision"}}, "model.encoder.name", "takes image inputs, not vector"),
        ({"head": {"name": "classification", "labels": "ajar"}}, "model.head.labels", "'open' or 'closed'"),
        ({"head": {"name": "classification", "labels": "closed"}}, "model.head.classes", "needs the classes"),
        ({"head": {"name": "classification", "classes": ["a", "a"]}}, "model.head.classes", "twice"),
        ({"haed": {}}, "model.haed", "allowed: class, encoder, head, input"),
        ({"input": {"kind": "record", "fields": {"a": "int"}}}, "model.input.fields.a", "'number', 'string' or 'boolean'"),
    ],
)
def test_a_wrong_specification_names_the_field_and_what_is_allowed(wrong: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(SpecificationError) as raised:
        build_model(spec(**wrong))
    assert raised.value.field == field
    assert says in raised.value.detail


def test_a_model_of_your_own_is_made_by_its_path() -> None:
    model = build_model({"class": "tests.faults.poison:Poisonable"})
    assert type(model).__name__ == "Poisonable"
    assert model.head.task == "classification"


@pytest.mark.parametrize("path", ["nowhere:Model", "models.base:Nothing", "models", "", "json:loads"])
def test_a_path_that_leads_to_no_model_is_told(path: str) -> None:
    with pytest.raises(SpecificationError) as raised:
        build_model({"class": path})
    assert raised.value.field == "model.class"


def test_the_architecture_can_be_built_without_fetching_weights() -> None:
    assert without_weights({"encoder": {"name": "torchvision", "weights": "DEFAULT"}}) == {
        "encoder": {"name": "torchvision", "weights": "none"}
    }
    assert without_weights({"class": "a:B"}) == {"class": "a:B"}


@pytest.mark.parametrize(("known", "made"), [(INPUTS, InputKind), (ENCODERS, Encoder), (HEADS, Head)])
def test_every_name_stands_for_what_it_says(known: Mapping[str, Any], made: type) -> None:
    for name, part in known.items():
        assert isinstance(part, type), name
        assert made is InputKind or issubclass(part, made), name


def test_a_service_does_not_import_what_its_model_has_no_use_for() -> None:
    code = "import sys, service.processes.http; print(sorted({'torchvision', 'transformers', 'sacrebleu'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
