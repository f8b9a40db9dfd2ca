from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from service.learning.tensorfile import DTYPES, pack, unpack

SHAPES = [(), (3,), (2, 5), (0, 4)]


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        f'{place}/"{dtype}\\ é{len(shape)}': torch.randint(0, 2, shape).to(dtype)
        for place, dtype in enumerate(DTYPES)
        for shape in SHAPES
    }


def test_the_bytes_are_those_that_the_library_writes(tensors: dict[str, torch.Tensor]) -> None:
    assert pack(tensors) == save(tensors)


def test_what_was_packed_or_written_by_the_library_is_unpacked(tensors: dict[str, torch.Tensor]) -> None:
    for file in (pack(tensors), save(tensors, metadata={"format": "pt"})):
        found = unpack(bytearray(file))
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found[name], tensor)


def test_what_is_unpacked_lies_in_the_memory_of_the_file() -> None:
    file = bytearray(pack({"x": torch.zeros(3)}))
    found = unpack(file)["x"]
    found[2] = 1.0
    assert load(bytes(file))["x"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("header", [b"{", b'{"x": {}}', b'{"x": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}'])
def test_what_is_no_file_of_tensors_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the words are those of json and torch
        unpack(bytearray(len(header).to_bytes(8, "little") + header + bytes(4)))


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
