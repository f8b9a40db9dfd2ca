"""Files as items for a service: CSV, JSON lines, and folders of pictures. What a cell is, the service's own document says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from service.client.messages import Feedback
from service.tables import Row, StreamError, number, rows_of, typed

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
CHUNK = 2**20  # bytes that are hashed at once

ITEM = frozenset({"instance", "prediction_id", "label", "weight", "key"})
"""What an item says to /feedback, by name."""

LEAVE_OUT = "--label names the one that holds the label"

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """An item, and where in the file it stands."""

    place: str
    instance: Any
    feedback: Feedback | None = None
    """With its label; None where none was asked for."""


@dataclass(frozen=True, slots=True)
class Lines:
    """The items of a file, in its order."""

    count: int
    read: Callable[[], Iterator[Line]]


def lines_of(path: Path, document: Schema, *, label: str | None, labelled: bool) -> Lines:
    """Return the items of a file or folder; `label` is the column that holds the label.

    The key of a labelled item is made of the whole content of its file and its place in it: the same file, sent again, is
    the same feedback. Raises StreamError where the file does not say what the service needs, and OSError.
    """
    if path.is_dir() or path.suffix.lower() in PICTURES:
        files = _pictures(path, labelled=labelled)
        return Lines(len(files), partial(_from_pictures, path, files, labelled))
    read = _from_csv if path.suffix.lower() == ".csv" else _from_json
    form = Form(document, label=label, labelled=labelled, file=_digest(path))
    return Lines(sum(1 for _ in read(path, form)), partial(read, path, form))


class Form:
    """How the items of a file become those of the service."""

    def __init__(self, document: Schema, *, label: str | None, labelled: bool, file: str) -> None:
        schemas = document["components"]["schemas"]
        self.instance = _resolved(schemas, schemas["PredictRequest"]["properties"]["instances"]["items"])
        self.labels = _resolved(schemas, schemas["FeedbackRequest"]["properties"]["feedback"]["items"])["properties"]["label"]
        self.label = label
        self.labelled = labelled
        self._file = file

    def line(self, place: str, index: int, instance: Any, more: Mapping[str, Any]) -> Line:
        """Return an item; `more` is what else /feedback takes of it."""
        if not self.labelled:
            return Line(place, instance)
        key = hashlib.sha256(f"{self._file}:{self.label}".encode()).hexdigest()[:32]
        return Line(place, instance, Feedback(**{"instance": instance, "key": f"{key}:{index}", **more}))


def _from_csv(path: Path, form: Form) -> Iterator[Line]:
    if form.labelled and form.label is None:
        raise StreamError("name the column that holds the label, with --label")
    for index, (line, row) in enumerate(rows_of(path), 1):
        if form.labelled and form.label not in row:
            raise StreamError(f"{path} has no column {form.label!r}; it has {', '.join(row)}")
        cells = {name: value for name, value in row.items() if name != form.label}
        try:
            more = {"label": _label(row[form.label], form.labels)} if form.labelled and form.label else {}
            yield form.line(f"line {line}", index, _instance(cells, form.instance), more)
        except ValueError as exc:
            raise StreamError(f"line {line}: {exc}") from exc


def _from_json(path: Path, form: Form) -> Iterator[Line]:
    """Yield what each line holds: an item as /feedback takes it, an instance, or a record with its label among its fields."""
    with open(path, encoding="utf-8") as file:
        for index, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                value = json.loads(text.rstrip())
            except json.JSONDecodeError as exc:
                raise StreamError(f"line {index}: it is no JSON: {exc.msg} at column {exc.colno}") from exc
            except ValueError as exc:
                raise StreamError(f"line {index}: it is no JSON: {exc}") from exc
            yield _json_line(f"line {index}", index, value, form)


def _json_line(place: str, index: int, value: Any, form: Form) -> Line:
    more = {}
    if form.labelled and form.label is not None:
        if not isinstance(value, dict) or form.label not in value:
            raise StreamError(f"{place}: there is no {form.label!r} in it")
        more = {"label": value.pop(form.label)}
    elif form.labelled:
        if not isinstance(value, dict) or "label" not in value or not value.keys() <= ITEM:
            told = '{"instance": ..., "label": ...}'
            raise StreamError(f"{place}: it is no item like {told}; or name the field that holds the label with --label")
        return form.line(place, index, value.pop("instance", None), value)
    elif form.label is not None and isinstance(value, dict):
        value.pop(form.label, None)
    if isinstance(value, dict) and "instance" in value and value.keys() <= ITEM:
        return form.line(place, index, value.pop("instance"), {**value, **more})
    try:
        return form.line(place, index, _record(value, form.instance), more)
    except ValueError as exc:
        raise StreamError(f"{place}: {exc}") from exc


def _pictures(path: Path, *, labelled: bool) -> list[Path]:
    """Return the pictures; with labels those in sub-folders, which are named as the labels."""
    if path.is_file():
        if labelled:
            raise StreamError(f"{path} is one picture: give a folder that has one sub-folder for each label")
        return [path]
    files = sorted(each for each in path.glob("*/*" if labelled else "**/*") if each.suffix.lower() in PICTURES)
    if labelled:  # each label in its turn: whoever hears of one class at a time learns worse
        by_label = [list(group) for _, group in groupby(files, key=lambda each: each.parent)]
        files = [each for turn in zip_longest(*by_label) for each in turn if each is not None]
    if not files:
        where = "sub-folders, one for each label," if labelled else "files"
        raise StreamError(f"{path} has no {where} with pictures ({', '.join(sorted(PICTURES))})")
    return files


def _from_pictures(root: Path, files: Iterable[Path], labelled: bool) -> Iterator[Line]:
    """Yield pictures. Each is an item of its own: what comes into the folder later is new, the rest is known."""
    for path in files:
        picture, place = path.read_bytes(), str(path.relative_to(root)) if path != root else path.name
        if labelled:
            key = hashlib.sha256(place.encode() + b"\0" + picture).hexdigest()[:32]
            yield Line(place, picture, Feedback(label=path.parent.name, instance=picture, key=key))
        else:
            yield Line(place, picture)


def _instance(cells: Row, schema: Schema) -> Any:
    """Return a row as an instance. Raises ValueError."""
    match schema:
        case {"type": "array", "items": {"type": "number"}}:
            return [_cell(name, cell, number) for name, cell in cells.items()]
        case {"type": "object", "properties": dict() as fields} if "b64" not in fields:
            if schema.get("additionalProperties") is False and (unknown := cells.keys() - fields):
                raise ValueError(f"column {min(unknown)!r} is none of the model's ({', '.join(fields)}); {LEAVE_OUT}")
            kinds = {name: _type(fields.get(name, {})) for name in cells}
            return {name: _cell(name, cell, partial(typed, kind=kinds[name])) for name, cell in cells.items()}
        case {"type": "string"}:
            return _text(cells, "columns")
        case _:
            raise ValueError("the instances of this model are no rows of a table: give a file of JSON lines, or a folder")


def _record(value: Any, schema: Schema) -> Any:
    """Return what a line of JSON says as an instance: of a text, its only field may hold it. Raises ValueError."""
    return _text(value, "fields") if schema.get("type") == "string" and isinstance(value, dict) else value


def _text(fields: Mapping[str, Any], what: str) -> Any:
    if len(fields) != 1:
        names = ", ".join(fields)
        raise ValueError(f"an instance is one text, and there are {len(fields)} {what} for it: {names}; {LEAVE_OUT}")
    return next(iter(fields.values()))


def _cell(name: str, cell: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(cell)
    except ValueError as exc:
        raise ValueError(f"column {name!r}: {exc}") from None


def _label(cell: str, schema: Schema) -> Any:
    """Return a label: as it stands where a text is one, else as JSON. Raises ValueError."""
    if "string" in {branch.get("type") for branch in schema.get("anyOf", [schema])}:
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        raise ValueError(f"{cell!r} is no label of this model") from None


def _type(schema: Schema) -> str:
    """Return the type of a field that may be missing; that of an unknown one is a string."""
    types = [branch["type"] for branch in schema.get("anyOf", [schema]) if branch.get("type", "null") != "null"]
    return types[0] if types else "string"


def _resolved(schemas: Schema, schema: Schema) -> Schema:
    reference = schema.get("$ref")
    resolved: Schema = schemas[reference.rpartition("/")[2]] if reference else schema
    return resolved


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
