"""Tensors as safetensors: the bytes that the library writes, several times as fast where they are many and small, and read
without a copy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from math import prod

import torch
from torch import Tensor

from service.memory import Memory

# What the format calls them, in the order in which it puts their tensors: so each is aligned.
DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
NAMED = {name: dtype for dtype, name in DTYPES.items()}
RANKS = {dtype: rank for rank, dtype in enumerate(DTYPES)}
LENGTH = 8  # bytes, of the length of the description
ALIGNMENT = 8  # bytes, of where the tensors begin

Place = tuple[str, torch.dtype, torch.Size]
"""A tensor's name, type and shape."""


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the file that holds these tensors, on whatever device they are."""
    ordered = sorted(tensors.items(), key=lambda each: (RANKS[each[1].dtype], each[0]))
    header = _header(tuple((name, tensor.dtype, tensor.shape) for name, tensor in ordered))
    return b"".join([header, *(_buffer(tensor) for _, tensor in ordered)])


def _buffer(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:  # which numpy does not know
        plain = plain.view(torch.int16)
    return plain.numpy().data


@lru_cache(maxsize=16)
def _header(places: tuple[Place, ...]) -> bytes:
    """Return the length of the description, and the description: of one version it is mostly that of the one before."""
    sizes = (prod(shape) * dtype.itemsize for _, dtype, shape in places)
    spans = pairwise(accumulate(chain([0], sizes)))
    described = {
        name: {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": list(span)}
        for (name, dtype, shape), span in zip(places, spans, strict=True)
    }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH, "little") + text


def unpack(file: Memory) -> dict[str, Tensor]:
    """Return the tensors of a file. They lie in its memory: nothing is copied. Raises ValueError where it is none."""
    begin = LENGTH + int.from_bytes(file[:LENGTH], "little")
    described = json.loads(bytes(file[LENGTH:begin]))
    described.pop("__metadata__", None)
    try:
        return {name: _tensor(file, begin, **place) for name, place in described.items()}
    except (KeyError, TypeError) as exc:
        raise ValueError(f"a tensor that is not described as one: {exc}") from exc


def _tensor(file: Memory, begin: int, *, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    count = prod(shape)
    if not count:  # which torch does not take from a buffer
        return torch.empty(shape, dtype=NAMED[dtype])
    return torch.frombuffer(file, dtype=NAMED[dtype], count=count, offset=begin + data_offsets[0]).view(shape)
