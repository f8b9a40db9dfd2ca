"""`everlearn whatif`: how the model would answer had some feedback never been given. Nothing on the disk is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.base import Answer, OnlineModel
from models.errors import InstanceError
from service.erasure import chosen
from service.forgetting import Forgetting
from service.learning.arithmetic import use_deterministic_torch
from service.reading import reading
from service.replay import Records, rebuild
from service.store import FeedbackLog, StoreError, Version

MOST_SCORES = 5  # of an answer that are shown


def run(data: Path, without: Sequence[int], instances: Sequence[str]) -> None:
    """Print how the newest version answers, and how one that never saw these entries would.

    The instances are JSON; without any, they are those of the entries. Raises StoreError.
    """
    with reading(data) as (records, latest):
        chosen(records.feedback, seqs=without)
        use_deterministic_torch(records.settings.threads)
        served = rebuild(records, latest).model
        shown = list(_instances(served, records.feedback, without, instances))
        other = _made_without(records, without, latest)
        before, after = (_answers(model, [prepared for _, prepared in shown]) for model in (served, other))
        console = Console(highlight=False, soft_wrap=True)
        for (name, _), was, would_be in zip(shown, before, after, strict=True):
            console.print(_table(name, was, would_be))


def _made_without(records: Records, without: Sequence[int], latest: Version) -> OnlineModel:
    forgetting = Forgetting(records, without, latest)
    columns = (TextColumn("without"), BarColumn(), MofNCompleteColumn(), TextColumn("versions"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=latest.version - forgetting.parent)
        while not forgetting.advance(latest):
            progress.update(bar, completed=forgetting.at - forgetting.parent)
    return forgetting.state.model


def _instances(
    model: OnlineModel, feedback: FeedbackLog, without: Sequence[int], given: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """Yield (name, prepared instance). Raises StoreError for what is no instance of the model."""
    for text in given:
        try:
            yield text, model.input.prepare(model.input.parse(json.loads(text)))
        except (ValueError, InstanceError) as exc:
            raise StoreError(f"not an instance: {text}: {exc}") from exc
    if not given:
        found = feedback.fetch(without)
        for seq in without:
            if seq not in found or found[seq].kind != "feedback":
                raise StoreError(f"there is no feedback with sequence number {seq}")
            yield f"seq {seq}, labelled {found[seq].label}", model.input.prepare(model.input.load(found[seq].instance))


def _answers(model: OnlineModel, prepared: Sequence[Any]) -> list[Answer]:
    if not model.head.ready:
        return [{} for _ in prepared]
    with torch.no_grad():
        return model.head.answers(model(model.collate(prepared)), None)


def _table(name: str, was: Answer, would_be: Answer) -> Table:
    table = Table("", "as it is", "without", title=name, title_justify="left")
    for field in dict.fromkeys([*was, *would_be]):
        if isinstance(was.get(field, would_be.get(field)), dict):
            for row in _scores(field, was.get(field, {}), would_be.get(field, {})):
                table.add_row(*row)
        else:
            table.add_row(field, _told(was.get(field)), _told(would_be.get(field)))
    return table


def _scores(field: str, was: Mapping[str, Any], would_be: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the scores that changed most."""
    names = dict.fromkeys([*was, *would_be])
    moved = sorted(names, key=lambda name: -abs(float(was.get(name, 0)) - float(would_be.get(name, 0))))
    for name in moved[:MOST_SCORES]:
        yield f"{field}: {name}", _told(was.get(name)), _told(would_be.get(name))


def _told(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
