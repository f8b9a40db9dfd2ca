"""How tensors become instances: which tensors a model takes follows from what an instance is in JSON."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from models.inputs import InputKind
from service.api.inference.tensors import BYTES, Array, InputTensor, refused
from service.api.problems import MALFORMED, Problem

SCALARS = {"number": "FP64", "integer": "INT64", "string": BYTES, "boolean": "BOOL"}
"""What a value of JSON Schema is as an element."""

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor that the model takes or gives, batch first; -1 stands for any size."""

    name: str
    datatype: str
    shape: Sequence[int]

    def as_json(self) -> dict[str, Any]:
        """Return it as the protocol describes tensors."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Inputs:
    """The tensors that a model takes, and what makes instances, as JSON has them, of those that came."""

    described: Sequence[Described]
    instances: Callable[[Mapping[str, Array]], list[Any]]

    def check(self, tensors: Sequence[InputTensor], most: int) -> None:
        """Raise Problem 422 for what the model does not take, or more than so many instances, before any of it is read."""
        known = {each.name: each.shape for each in self.described}
        for tensor in tensors:
            if tensor.name not in known:
                raise refused(tensor.name, f"there is no such input; there are {', '.join(known)}")
            expected, shape = known[tensor.name], tensor.shape
            if len(expected) == 1 and shape[1:] == [1]:  # a column that stands on end
                shape = shape[:1]
            if len(shape) != len(expected) or any(side not in {-1, given} for side, given in zip(expected, shape, strict=True)):
                raise refused(tensor.name, f"the shape is {list(expected)}, with any number for -1, not {tensor.shape}")
            if shape[0] > most:
                raise refused(tensor.name, f"{shape[0]} instances, and one request may have {most}")


def inputs_of(kind: InputKind) -> Inputs:
    """Return the tensors of an input kind.

    A vector is a row of numbers; a text or a picture an element; a record a tensor for each field; all else JSON in an element.
    """
    match TypeAdapter(kind.instance_type).json_schema():
        case {"type": "array", "items": {"type": "number"}, "minItems": width, "maxItems": most} if width == most:
            return Inputs([Described(kind.kind, "FP64", [-1, width])], lambda arrays: _numbers(kind.kind, arrays[kind.kind]))
        case {"type": "string"}:
            return _each(kind.kind, _text)
        case {"type": "object", "properties": {"b64": _, **more}} if not more:
            return _each(kind.kind, _picture)
        case {"type": "object", "properties": dict() as fields} if all(scalar_of(each) for each in fields.values()):
            return Inputs([Described(name, scalar_of(field) or "", [-1]) for name, field in fields.items()], _records)
        case _:
            return _each("instances", _document)


def scalar_of(schema: Schema) -> str | None:
    """Return the datatype of a value that may be null; None for what is no scalar."""
    return SCALARS.get(some(schema).get("type", ""))


def some(schema: Schema) -> Schema:
    """Return the schema of a value where it is not null."""
    branches = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    return branches[0] if len(branches) == 1 else {}


def _each(name: str, read: Callable[[str, Any], Any]) -> Inputs:
    return Inputs(
        [Described(name, BYTES, [-1])], lambda arrays: [read(name, each) for each in arrays[name].reshape(-1).tolist()]
    )


def _numbers(name: str, array: Array) -> list[Any]:
    if array.dtype.kind not in "fiu":
        raise refused(name, "its elements are numbers")
    rows: list[Any] = array.tolist()
    return rows


def _records(arrays: Mapping[str, Array]) -> list[Any]:
    """Return a record for each row; a number that is NaN is missing, as is a field without a tensor."""
    columns = {name: array.reshape(-1) for name, array in arrays.items()}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise refused(next(iter(columns)), f"the tensors have different numbers of rows: {sorted(lengths)}")
    cells = {name: [_cell(name, value) for value in column.tolist()] for name, column in columns.items()}
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(name, value)
    return None if value != value else value  # noqa: PLR0124  # NaN


def _text(name: str, element: str | bytes) -> str:
    if isinstance(element, str):
        return element
    try:
        return element.decode()
    except UnicodeDecodeError as exc:
        raise refused(name, "an element is not in UTF-8") from exc


def _picture(_: str, element: str | bytes) -> dict[str, str]:
    """Return a picture: its bytes, or base64 in JSON."""
    return {"b64": element if isinstance(element, str) else base64.b64encode(element).decode()}


def _document(name: str, element: str | bytes) -> Any:
    try:
        return from_json(element, allow_inf_nan=False)
    except ValueError as exc:
        raise Problem(MALFORMED, f"tensor {name!r}: an element is no JSON: {exc}") from exc
