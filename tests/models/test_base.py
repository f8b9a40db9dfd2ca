from __future__ import annotations

import pytest
import torch
from torch import nn

from models.base import OnlineModel
from models.errors import SpecificationError
from models.registry import build_model

FROZEN = {
    "input": {"kind": "image", "size": 32},
    "encoder": {"name": "torchvision", "backbone": "mobilenet_v3_small", "weights": "none"},
    "head": {"name": "classification", "experts": ["linear", "prototype"], "classes": ["a", "b"]},
}


def test_a_head_that_takes_vectors_refuses_an_encoder_that_gives_something_else() -> None:
    specification = {
        "input": {"kind": "vector", "length": 2},
        "encoder": {"name": "raw"},
        "head": {"name": "classification"},
    }
    with pytest.raises(
        SpecificationError, match=r"model\.encoder: it gives tensors, and the head classification takes vectors"
    ):
        build_model(specification)


def test_of_a_frozen_encoder_nothing_is_walked_over_and_everything_is_stored_once() -> None:
    model = build_model(FROZEN)
    frozen, live = model.split_state()
    assert {name.partition(".")[0] for name in frozen} == {"encoder"}
    assert {name.partition(".")[0] for name in live} == {"head"}
    assert frozen.keys() | live.keys() == model.state_dict().keys()
    assert {name for name, _ in model.trainable()} == {name for name, each in model.named_parameters() if each.requires_grad}
    assert [prefix for prefix, _ in model.changing()] == ["head"]


def test_a_model_of_ones_own_beside_a_frozen_encoder_is_stored_whole() -> None:
    class Tempered(OnlineModel):
        def __init__(self, plain: OnlineModel) -> None:
            super().__init__(input=plain.input, encoder=plain.encoder, head=plain.head)
            self.temperature = nn.Parameter(torch.ones(()))

    plain = build_model(FROZEN)
    own = Tempered(plain)
    assert "temperature" in own.live_state()
    assert "temperature" in dict(own.trainable())
    assert own.live_state().keys() == plain.live_state().keys() | {"temperature"}
