"""Files sent to a running service, part by part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.client import Client, Prediction, ProblemError, Unreachable
from service.client.files import Line, Lines, lines_of
from service.tables import StreamError

PART = 500  # items between two moves of the bar
MOST_REFUSED = 20  # items of a file to predict, after which the rest will not be better
FIRST_PATIENCE = 10.0  # seconds for which a service is looked for: it may be elsewhere
PATIENCE = 600.0  # seconds for which one request is tried again: nobody is there to do it


class Stopped(Exception):
    """It was interrupted; the message says how to go on."""


class Refused(StreamError):
    """The service refuses one item."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index
        """Its place in its part."""


def predict_file(
    source: Path,
    url: str,
    key: str | None,
    *,
    label: str | None,
    top_k: int | None,
    tell: Callable[[str], object],
    warn: Callable[[str], object],
) -> None:
    """Predict each item of a file: `tell` each answer as a line of JSON, and `warn` of what the service refuses.

    Raises StreamError at the end where it refused any, and at once where that were too many; ClientError and OSError.
    """
    refused: list[Refused] = []

    def refuse(refusal: Refused) -> None:
        refused.append(refusal)
        if len(refused) > MOST_REFUSED:
            raise refusal
        warn(str(refusal))

    with _calling(url, key) as (client, document):
        lines = lines_of(source, document, label=label, labelled=False)
        for part in _parts(lines, "predicted"):
            for line, each in _predicted(client, part, top_k, refuse):
                told = {"item": line.place, "id": each.id, "model_version": each.model_version, **each.answer}
                tell(json.dumps(told, ensure_ascii=False))
    if refused:
        raise StreamError(f"{len(refused)} of {lines.count} items of {source} were refused, the others are predicted")


def _predicted(
    client: Client, part: list[Line], top_k: int | None, refuse: Callable[[Refused], object]
) -> Iterable[tuple[Line, Prediction]]:
    """Return the items with their answers, without those that the service refuses: `refuse` is told of them."""
    left = list(part)
    while left:
        try:
            with _blaming(left):
                predictions = client.predict((line.instance for line in left), top_k=top_k)
        except Refused as exc:
            refuse(exc)
            del left[exc.index]
        else:
            return zip(left, predictions, strict=True)
    return ()


def send_file(source: Path, url: str, key: str | None, *, label: str | None, wait: float) -> str:
    """Send the labelled items of a file, and wait at the end until they are served. Return what came of it, in words.

    Raises ClientError, StreamError, OSError, and Stopped on Ctrl-C.
    """
    sent, last, version = 0, 0, None
    with _calling(url, key) as (client, document):
        lines = lines_of(source, document, label=label, labelled=True)
        try:
            for part in _parts(lines, "sent"):
                sent += len(part)
                with _blaming(part):
                    items = (line.feedback for line in part if line.feedback is not None)
                    taken = client.feedback(items, wait=wait if sent == lines.count else 0)
                last, version = max(last, *taken.seqs), taken.model_version
        except KeyboardInterrupt:
            raise Stopped(f"stopped before the end of {source}; the same command goes on, and doubles nothing") from None
    served = "" if version is None else f"; version {version}, which is served, knows them"
    return f"{sent} items of {source} are in the log of {url}, up to seq {last}{served}"


@contextmanager
def _calling(url: str, key: str | None) -> Iterator[tuple[Client, dict[str, Any]]]:
    """Give a client and the document of the service, which is named where it does not answer."""
    try:
        with Client(url, token=key, patience=FIRST_PATIENCE) as client:
            document, limits = client.document(), client.limits()
        with Client(url, token=key, patience=PATIENCE, limits=limits) as client:
            yield client, document
    except Unreachable as exc:
        raise Unreachable(f"{url} does not answer: {exc}") from exc


@contextmanager
def _blaming(part: list[Line]) -> Iterator[None]:
    """Name the place in the file of what the service refuses."""
    try:
        yield
    except ProblemError as problem:
        for fault in problem.faults:
            _, *place = fault.pointer.split("/")
            if len(place) > 1 and place[1].isdecimal() and int(place[1]) < len(part):  # else it is no item that is to blame
                where = f"{'/'.join(place[2:])}: " if place[2:] else ""
                raise Refused(int(place[1]), f"{part[int(place[1])].place}: {where}{fault.detail}") from problem
        raise
    except (TypeError, ValueError) as exc:
        raise StreamError(f"{part[0].place} to {part[-1].place}: {exc}") from exc


def _parts(lines: Lines, verb: str) -> Iterator[list[Line]]:
    """Yield the items in parts, and show how many of them are done."""
    columns: tuple[Any, ...] = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(verb, total=lines.count)
        read = lines.read()
        while part := list(islice(read, PART)):
            yield part
            progress.advance(bar, len(part))
