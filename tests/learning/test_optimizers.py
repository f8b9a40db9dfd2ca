from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models.errors import SpecificationError
from service.learning.optimizers import NamedOptimizer, resolve_optimizer

SPECS: list[dict[str, Any]] = [
    {"name": "sgd", "lr": 0.1},
    {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"name": "adam", "lr": 0.1},
    {"name": "adam", "lr": 0.1, "amsgrad": True},
    {"name": "adamw", "lr": 0.1},
]


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def step(optimizer: NamedOptimizer, model: nn.Linear, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        optimizer.step(model(torch.randn(8, 3, generator=generator)).square().mean())


@pytest.mark.parametrize("spec", SPECS)
def test_it_lowers_the_loss(spec: dict[str, Any]) -> None:
    model = line()
    before = model.weight.detach().norm()
    step(NamedOptimizer(spec, dict(model.named_parameters())), model, 30)
    assert model.weight.detach().norm() < before


@pytest.mark.parametrize("spec", SPECS)
def test_it_goes_on_from_its_saved_state_to_the_bit(spec: dict[str, Any]) -> None:
    whole, parts = line(), line()
    optimizer = NamedOptimizer(spec, dict(whole.named_parameters()))
    step(optimizer, whole, 5)
    step(optimizer, whole, 4)
    first = NamedOptimizer(spec, dict(parts.named_parameters()))
    step(first, parts, 5)
    second = NamedOptimizer(spec, dict(parts.named_parameters()))
    second.load(first.tensors())
    step(second, parts, 4)
    assert torch.equal(whole.weight, parts.weight)


@pytest.mark.parametrize("spec", SPECS)
def test_its_state_survives_a_parameter_that_grows(spec: dict[str, Any]) -> None:
    model = line()
    optimizer = NamedOptimizer(spec, dict(model.named_parameters()))
    step(optimizer, model, 3)
    before = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    model.weight = nn.Parameter(torch.cat([model.weight.data, torch.zeros(2, 3)]))
    model.bias = nn.Parameter(torch.cat([model.bias.data, torch.zeros(2)]))
    optimizer.follow(dict(model.named_parameters()), dict)
    after = optimizer.tensors()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        if tensor.dim():
            assert torch.equal(after[name][: len(tensor)], tensor)
            assert (after[name][len(tensor) :] == 0).all()
        else:
            assert torch.equal(after[name], tensor)
    step(optimizer, model, 2)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "learning.optimizer.name: missing; allowed: adam, adamw, sgd"),
        ({"name": "lion"}, "learning.optimizer.name: 'lion' is not one of adam, adamw, sgd"),
        ({"name": "sgd", "lr": 0}, "learning.optimizer.lr"),
        ({"name": "adam", "momentum": 0.9}, "learning.optimizer.momentum: no such option; allowed: amsgrad, betas"),
        ({"name": "adam", "betas": [0.9, 1.0]}, "learning.optimizer.betas.1"),
        ({"name": "sgd", "nesterov": True}, "learning.optimizer: Nesterov momentum requires a momentum"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecificationError) as raised:
        resolve_optimizer(spec)
    assert says in str(raised.value)


def test_a_resolved_optimizer_names_every_default() -> None:
    assert resolve_optimizer({"name": "sgd"}).keys() >= {"name", "lr", "momentum", "nesterov", "weight_decay"}


def test_a_parameters_rate_and_a_steps_scale_make_its_steps_longer() -> None:
    moved = []
    for rates, scale in (({}, 1.0), ({"weight": 3.0}, 1.0), ({}, 3.0)):
        model = line()
        before = model.weight.detach().clone()
        optimizer = NamedOptimizer({"name": "sgd", "lr": 0.1}, dict(model.named_parameters()), rates)
        optimizer.step(model(torch.ones(1, 3)).sum(), scale)
        moved.append((model.weight.detach() - before).norm().item())
    assert moved[1] == moved[2] == pytest.approx(3 * moved[0])
