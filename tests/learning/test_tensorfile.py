from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from service.learning.tensorfile import DTYPES, pack

SHAPES = [(), (3,), (2, 5), (0, 4)]


def test_the_bytes_are_those_that_the_library_writes() -> None:
    tensors = {
        f'{place}/"{dtype}\\ é{len(shape)}': torch.randint(0, 2, shape).to(dtype)
        for place, dtype in enumerate(DTYPES)
        for shape in SHAPES
    }
    assert pack(tensors) == save(tensors)


def test_nothing_is_a_file_too() -> None:
    assert pack({}) == save({})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_a_slice_and_a_parameter_come_back(dtype: torch.dtype) -> None:
    tensors = {"slice": torch.arange(12).to(dtype).view(3, 4).T[1:], "again": torch.arange(12).to(dtype)[::3]}
    found = load(pack(tensors))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_file_that_was_packed_does_not_follow_the_tensor() -> None:
    tensor = torch.zeros(3, requires_grad=True)
    packed = pack({"x": tensor})
    with torch.no_grad():
        tensor += 1
    assert load(packed)["x"].tolist() == [0, 0, 0]
