"""`everlearn evaluate`: a file of rows through the learning code, each predicted before it is learned from."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.base import OnlineModel
from models.errors import InstanceError, LabelError
from models.inputs import Record, Vector
from service.checkpointing import available, first_state, shaping_of
from service.learner import use_deterministic_torch
from service.learning.update import Item, LearningState
from service.settings import Settings, load_settings

WINDOW = 1000  # items in the report's `value_last_1000`
MOST_CLASSES = 50  # whole numbers with more distinct values than this are numbers to predict, not classes
TRUTH = {"true": True, "false": False}
MISSING = ("", "?", "na", "nan", "null")  # a missing number, as statistics programs write it

Row = dict[str, str]


class StreamError(Exception):
    """The file can't be evaluated; the message names the line or the column."""


def run(stream: Path, label: str, config: Path | None, report: Path | None) -> None:
    """Evaluate a CSV file and print what came out. Raises StreamError, SettingsError or SpecificationError."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if report and not report.parent.is_dir():
        raise StreamError(f"{report} can't be written: there is no folder {report.parent}")
    columns, rows = _survey(stream, label)
    settings = load_settings(config) if config else Settings(model=_specification(columns, label))
    if config is None:
        console.print(f"everlearn: {_describe(settings.model, label)}")
    evaluation = _Evaluation(settings)
    started = time.perf_counter()
    with _progress(console) as progress:
        bar = progress.add_task("evaluate", total=rows, score="")
        for line, row in _rows(stream):
            evaluation.learn(line, row, label)
            progress.update(bar, advance=1, score=evaluation.summary())
    figures = {**evaluation.figures(), "seconds": round(time.perf_counter() - started, 3)}
    if report:
        report.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))


class _Evaluation:
    """One model, one row at a time."""

    def __init__(self, settings: Settings) -> None:
        shaping = shaping_of(settings.model_copy(update={"learning": settings.learning.model_copy(update={"window": WINDOW})}))
        use_deterministic_torch(settings.learner.threads)
        self._state: LearningState = first_state(shaping, available("learner.device", settings.learner.device))
        self._reader = _Reader(self._state.model)
        self._items: dict[int, Item] = {}
        self._seq = 0

    def learn(self, line: int, row: Row, label: str) -> None:
        """Predict a row and learn from it. Raises StreamError."""
        self._seq += 1
        self._items[self._seq] = self._reader.item(line, row, label)
        try:
            self._state.update(self._state.plan([self._seq]), self._items)
        except LabelError as exc:
            raise StreamError(f"line {line}: {exc}") from exc
        if len(self._items) > 2 * self._state.settings.memory:
            self._items = {seq: self._items[seq] for seq in self._state.rehearsal.seqs}

    def figures(self) -> dict[str, Any]:
        """Return what the report holds, but for the time."""
        metrics, name = self._state.metrics(), self._state.model.head.metric
        window = metrics["window"]
        return {"items": self._seq, "metric": name, "value": metrics.get(name), "value_last_1000": window.get(name)}

    def summary(self) -> str:
        """Return the metric so far, for the progress bar."""
        figures = self.figures()
        return f"{figures['metric']} {figures['value']:.4f} (last {WINDOW}: {figures['value_last_1000']:.4f})"


class _Reader:
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
            wanted = text if self._head.task == "classification" else _number(text)
            return self._head.parse_label(self._labels.validate_python(wanted))
        except ValidationError as exc:
            raise StreamError(f"line {line}: column {column!r}: {exc.errors()[0]['msg']}") from exc
        except (LabelError, ValueError) as exc:
            raise StreamError(f"line {line}: column {column!r}: {exc}") from exc

    def _instance(self, values: Mapping[str, str]) -> Any:
        if isinstance(self._input, Vector):
            return [_number(value) for value in values.values()]
        return {name: self._cell(name, value) for name, value in values.items()}

    def _cell(self, name: str, value: str) -> float | bool | str | None:
        assert isinstance(self._input, Record)
        try:
            return _typed(value, self._input.fields.get(name, "string"))
        except ValueError as exc:
            raise ValueError(f"column {name!r}: {exc}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _explain(error: ValidationError, columns: Sequence[str]) -> str:
    """Return the first error with the column that it is about, where it is about one."""
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"]
    place = first["loc"][0]
    return f"column {columns[place] if isinstance(place, int) else place!r}: {first['msg']}"


def _typed(value: str, kind: str) -> float | bool | str | None:
    """Return a cell as a record has it; an empty cell is a missing value, as are MISSING among numbers."""
    if not value:
        return None
    if kind == "number":
        return None if value.lower() in MISSING else _number(value)
    if kind == "boolean":
        if value.lower() not in TRUTH:
            raise ValueError(f"{value!r} is neither true nor false")
        return TRUTH[value.lower()]
    return value


class _Column:
    """What has been seen of a column, to tell its type."""

    def __init__(self) -> None:
        self.numbers = self.whole = self.booleans = True
        self.distinct: set[str] = set()

    def see(self, value: str) -> None:
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
        if not self.distinct:
            return "string"
        return "boolean" if self.booleans else "number" if self.numbers else "string"

    @property
    def task(self) -> str:
        """What predicting this column is."""
        classes = not self.numbers or (self.whole and len(self.distinct) <= MOST_CLASSES)
        return "classification" if classes else "regression"


def _survey(stream: Path, label: str) -> tuple[dict[str, _Column], int]:
    """Read the file once to see its columns and count its rows."""
    columns: dict[str, _Column] = {}
    rows = 0
    for _, row in _rows(stream):
        if label not in row:
            raise StreamError(f"{stream} has no column {label!r}; it has {', '.join(row)}")
        for name, value in row.items():
            columns.setdefault(name, _Column()).see(value)
        rows += 1
    if not rows:
        raise StreamError(f"{stream} has no rows")
    return columns, rows


def _rows(stream: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line, row). Raises StreamError for a row that does not fit the header."""
    with open(stream, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, None)
            if not header or len(set(header)) != len(header):
                raise StreamError(f"{stream}: the first line must name every column, each once")
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise StreamError(f"line {reader.line_num}: {len(cells)} cells, and the header names {len(header)}")
                if cells:
                    yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=True))
        except (csv.Error, UnicodeDecodeError) as exc:
            raise StreamError(f"{stream} near line {reader.line_num + 1}: {exc}") from exc


def _specification(columns: Mapping[str, _Column], label: str) -> dict[str, Any]:
    fields = {name: column.kind for name, column in columns.items() if name != label}
    if not fields:
        raise StreamError(f"the file has no column but {label!r}: there is nothing to predict from")
    head = {"name": columns[label].task}
    return {"input": {"kind": "record", "fields": fields}, "encoder": {"name": "tabular"}, "head": head}


def _describe(specification: Mapping[str, Any], label: str) -> str:
    """Say what was read from the file, so that a column of the wrong type is noticed."""
    fields = specification["input"]["fields"]
    names = {kind: [name for name in fields if fields[name] == kind] for kind in ("number", "boolean", "string")}
    shown = [
        f"{kind}s {', '.join(of[:5])}{f' and {len(of) - 5} more' if len(of) > 5 else ''}" for kind, of in names.items() if of
    ]
    return f"{specification['head']['name']} of {label} from {'; '.join(shown)}"


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[score]}"), TimeRemainingColumn(), console=console
    )
