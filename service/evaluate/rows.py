"""Rows of a CSV file: what their columns are, and each as an item that a model can learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.base import OnlineModel
from models.errors import InstanceError, LabelError
from models.inputs import Record, Vector
from service.learning.update import Item
from service.tables import MISSING, TRUTH, Row, StreamError, number, rows_of, typed

MOST_CLASSES = 50  # whole numbers with more distinct values than this are numbers to predict, not classes


class Reader:
    """Turns a row of strings into an item, as the model's input kind and head want them."""

    def __init__(self, model: OnlineModel) -> None:
        if not isinstance(model.input, Vector | Record):
            raise StreamError(f"a CSV file has no {model.input.kind} instances; give a vector or record configuration")
        self._input = model.input
        self._head = model.head
        instance_type: Any = model.input.instance_type
        self._instances: TypeAdapter[Any] = TypeAdapter(instance_type)
        self._labels = TypeAdapter(model.head.label_type)

    def item(self, line: int, row: Row, label: str) -> Item:
        """Raises StreamError that names the line and the column."""
        if not row[label]:
            raise StreamError(f"line {line}: column {label!r} is empty")
        values = {name: value for name, value in row.items() if name != label}
        try:
            instance = self._instances.validate_python(self._instance(values))
            prepared = self._input.prepare(self._input.parse(instance))
        except ValidationError as exc:
            raise StreamError(f"line {line}: {_explain(exc, list(values))}") from exc
        except (InstanceError, ValueError) as exc:
            raise StreamError(f"line {line}: {exc}") from exc
        return Item(prepared, self._label(line, row[label], label))

    def _label(self, line: int, text: str, column: str) -> Any:
        try:
            wanted = text if self._head.task == "classification" else number(text)
            return self._head.parse_label(self._labels.validate_python(wanted))
        except ValidationError as exc:
            raise StreamError(f"line {line}: column {column!r}: {exc.errors()[0]['msg']}") from exc
        except (LabelError, ValueError) as exc:
            raise StreamError(f"line {line}: column {column!r}: {exc}") from exc

    def _instance(self, values: Mapping[str, str]) -> Any:
        if isinstance(self._input, Vector):
            return [number(value) for value in values.values()]
        return {name: self._cell(name, value) for name, value in values.items()}

    def _cell(self, name: str, value: str) -> float | bool | str | None:
        assert isinstance(self._input, Record)
        try:
            return typed(value, self._input.fields.get(name, "string"))
        except ValueError as exc:
            raise ValueError(f"column {name!r}: {exc}") from None


def _explain(error: ValidationError, columns: Sequence[str]) -> str:
    """Return the first error with the column that it is about, where it is about one."""
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"]
    place = first["loc"][0]
    return f"column {columns[place] if isinstance(place, int) else place!r}: {first['msg']}"


class Column:
    """What has been seen of a column, to tell its type."""

    def __init__(self) -> None:
        self.numbers = self.whole = self.booleans = True
        self.distinct: set[str] = set()

    def see(self, value: str) -> None:
        """Take a cell in."""
        if not value:
            return
        self.booleans = self.booleans and value.lower() in TRUTH
        if self.numbers and value.lower() not in MISSING:
            try:
                whole = float(value).is_integer()
            except ValueError:
                self.numbers = False
            else:
                self.whole = self.whole and whole
        if len(self.distinct) <= MOST_CLASSES:
            self.distinct.add(value)

    @property
    def kind(self) -> str:
        """What a record's field of these cells is."""
        if not self.distinct:
            return "string"
        return "boolean" if self.booleans else "number" if self.numbers else "string"

    @property
    def task(self) -> str:
        """What predicting this column is."""
        classes = not self.numbers or (self.whole and len(self.distinct) <= MOST_CLASSES)
        return "classification" if classes else "regression"


def survey(stream: Path, label: str) -> tuple[dict[str, Column], int]:
    """Read the file once to see its columns and count its rows."""
    columns: dict[str, Column] = {}
    rows = 0
    for _, row in rows_of(stream):
        if label not in row:
            raise StreamError(f"{stream} has no column {label!r}; it has {', '.join(row)}")
        for name, value in row.items():
            columns.setdefault(name, Column()).see(value)
        rows += 1
    if not rows:
        raise StreamError(f"{stream} has no rows")
    return columns, rows


def specification_of(columns: Mapping[str, Column], label: str) -> dict[str, Any]:
    """Return the model for a file of these columns. Raises StreamError where nothing is left to predict from."""
    fields = {name: column.kind for name, column in columns.items() if name != label}
    if not fields:
        raise StreamError(f"the file has no column but {label!r}: there is nothing to predict from")
    head = {"name": columns[label].task}
    return {"input": {"kind": "record", "fields": fields}, "encoder": {"name": "tabular"}, "head": head}


def describe(specification: Mapping[str, Any], label: str) -> str:
    """Say what was read from the file, so that a column of the wrong type is noticed."""
    fields = specification["input"]["fields"]
    names = {kind: [name for name in fields if fields[name] == kind] for kind in ("number", "boolean", "string")}
    shown = [
        f"{kind}s {', '.join(of[:5])}{f' and {len(of) - 5} more' if len(of) > 5 else ''}" for kind, of in names.items() if of
    ]
    return f"{specification['head']['name']} of {label} from {'; '.join(shown)}"
