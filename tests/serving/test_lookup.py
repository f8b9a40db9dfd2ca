from __future__ import annotations

import pytest
import torch
from torch import nn

from service.serving.lookup import put_at_hand


@pytest.fixture
def model() -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    put_at_hand(layers)
    return layers


def test_parameters_and_parts_are_at_hand_and_buffers_are_not(model: nn.Sequential) -> None:
    first, norm = model
    assert vars(model)["0"] is first
    assert vars(first)["weight"] is first._parameters["weight"]
    assert "running_mean" not in vars(norm)


@torch.no_grad()
@pytest.mark.parametrize("number", [1.0, 3.0])
def test_tensors_that_are_loaded_take_their_place(model: nn.Sequential, number: float) -> None:
    before = model[0].weight
    model.load_state_dict({name: torch.full_like(each, number) for name, each in model.state_dict().items()}, assign=True)
    assert model[0].weight is not before
    assert model[0](torch.ones(1, 2)).tolist() == [[3 * number] * 3]


@torch.no_grad()
def test_a_parameter_or_a_part_that_is_assigned_takes_their_place(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.zeros(3, 2))
    assert model[0](torch.ones(1, 2)).tolist() == [model[0].bias.tolist()]
    model[0] = nn.Identity()
    assert isinstance(model.get_submodule("0"), nn.Identity)


def test_what_is_taken_away_is_gone_once_it_is_repeated(model: nn.Sequential) -> None:
    model[0].bias = None
    put_at_hand(model)
    assert model[0].bias is None


def test_a_module_that_lacks_a_parameter_lacks_it_at_hand_too() -> None:
    layer = nn.Linear(2, 3, bias=False)
    put_at_hand(layer)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
