"""Tensors as the Open Inference Protocol writes them: in JSON, or as bytes behind it (the binary tensor extension)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, Strict, TypeAdapter, ValidationError
from pydantic_core import to_json

from service.api.problems import INVALID, Problem

Array = np.ndarray[Any, Any]
"""The elements of a tensor; those of BYTES are `str` where they came in JSON, and `bytes` where they came as such."""

MOST_TENSORS = 1000  # that a request names: each costs far more memory than the bytes that name it

BYTES = "BYTES"
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
FIXED: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""The datatypes whose elements all have the same size, little-endian."""


def _elements(datatype: str) -> TypeAdapter[Any]:
    """Return what checks the elements of a datatype in JSON; a missing number is null."""
    if datatype == BYTES:
        return TypeAdapter(list[Annotated[str, Strict()]])
    dtype = FIXED[datatype]
    if dtype.kind == "b":
        return TypeAdapter(list[Annotated[bool, Strict()]])
    if dtype.kind == "f":
        return TypeAdapter(list[Annotated[float, Strict(), Field(allow_inf_nan=False)] | None])
    limits = np.iinfo(dtype)
    return TypeAdapter(list[Annotated[int, Strict(), Field(ge=int(limits.min), le=int(limits.max))]])


ELEMENTS = {datatype: _elements(datatype) for datatype in (*FIXED, BYTES)}


class Parameters(BaseModel):
    """What this service knows of the parameters of a tensor; others are ignored, as the protocol has it."""

    binary_data_size: Annotated[int, Field(ge=0, strict=True)] | None = None
    binary_data: Annotated[bool, Strict()] | None = None


class InputTensor(BaseModel):
    """A tensor of a request."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(max_length=8)]
    datatype: Datatype
    parameters: Parameters = Parameters()
    data: Any = None


class RequestedOutput(BaseModel):
    """A tensor that is asked for."""

    name: str
    parameters: Parameters = Parameters()


class RequestParameters(BaseModel):
    """What this service knows of the parameters of a request."""

    binary_data_output: Annotated[bool, Strict()] = False
    top_k: Any = None


class InferenceRequest(BaseModel):
    """A request for predictions."""

    id: str | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=MOST_TENSORS)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=MOST_TENSORS)] | None = None
    parameters: RequestParameters = RequestParameters()


class Written(NamedTuple):
    """A tensor of an answer: its entry in the JSON, and the bytes behind it, if any."""

    entry: Mapping[str, Any]
    binary: bytes | None


def arrays_of(inputs: Sequence[InputTensor], binary: bytes) -> dict[str, Array]:
    """Return the tensors by name; `binary` is what came behind the JSON. Raises Problem 422."""
    arrays: dict[str, Array] = {}
    offset = 0
    for tensor in inputs:
        if tensor.name in arrays:
            raise refused(tensor.name, "there are two of this name")
        size = tensor.parameters.binary_data_size
        if size is None:
            elements = _from_json(tensor)
        elif tensor.data is not None:
            raise refused(tensor.name, "it has data and binary_data_size")
        elif offset + size > len(binary):
            raise refused(tensor.name, f"binary_data_size is {size}, and {len(binary) - offset} bytes are left")
        else:
            elements = _from_binary(tensor, binary[offset : offset + size])
            offset += size
        if len(elements) != math.prod(tensor.shape):
            raise refused(
                tensor.name, f"the shape {tensor.shape} has {math.prod(tensor.shape)} elements, and {len(elements)} came"
            )
        arrays[tensor.name] = elements.reshape(tensor.shape)
    if offset != len(binary):
        raise Problem(INVALID, f"{len(binary) - offset} bytes behind the JSON belong to no input")
    return arrays


def written(name: str, datatype: str, array: Array, *, binary: bool) -> Written:
    """Write a tensor of an answer."""
    entry = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    if not binary:
        elements = array.ravel().tolist()
        if array.dtype.kind == "f":
            elements = [None if math.isnan(each) else each for each in elements]  # JSON has no NaN
        return Written({**entry, "data": elements}, None)
    data = _packed(array.ravel()) if datatype == BYTES else array.astype(FIXED[datatype]).tobytes()
    return Written({**entry, "parameters": {"binary_data_size": len(data)}}, data)


def refused(name: str, detail: str) -> Problem:
    """Return the problem of a tensor."""
    return Problem(INVALID, f"tensor {name!r}: {detail}")


def _from_json(tensor: InputTensor) -> Array:
    if not isinstance(tensor.data, list):
        raise refused(tensor.name, "data is a list of its elements, nested or flat")
    try:
        elements = ELEMENTS[tensor.datatype].validate_python(list(islice(_flat(tensor.data), math.prod(tensor.shape) + 1)))
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        raise refused(tensor.name, f"element {error['loc'][0]}: {error['msg']}") from exc
    return np.array(elements, dtype=FIXED.get(tensor.datatype, np.dtype(object)))


def _flat(data: list[Any]) -> Iterator[Any]:
    """Yield elements in row-major order, however they are nested."""
    for each in data:
        if isinstance(each, list):
            yield from _flat(each)
        else:
            yield each


def _from_binary(tensor: InputTensor, data: bytes) -> Array:
    if tensor.datatype == BYTES:
        return np.array(list(islice(_unpacked(tensor.name, data), math.prod(tensor.shape) + 1)), dtype=object)
    dtype = FIXED[tensor.datatype]
    if len(data) % dtype.itemsize:
        raise refused(tensor.name, f"{len(data)} bytes are no whole number of {tensor.datatype}")
    return np.frombuffer(data, dtype=dtype)


def _unpacked(name: str, data: bytes) -> Iterator[bytes]:
    """Yield the elements of BYTES: each has four bytes with its length before it."""
    offset = 0
    while offset < len(data):
        end = offset + 4
        if end <= len(data):
            end += struct.unpack_from("<I", data, offset)[0]
        if end > len(data):
            raise refused(name, f"the element at byte {offset} is longer than what came")
        yield data[offset + 4 : end]
        offset = end


def _packed(elements: Array) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in (str(element).encode() for element in elements))


def as_document(value: Any) -> str:
    """Return JSON, as an element of BYTES."""
    return to_json(value).decode()
