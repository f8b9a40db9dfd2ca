"""What a client can do, as steps: what both clients share."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Literal

from service.client.arrays import NPY, Rows, rows_of
from service.client.batches import Batch, Limits, cut
from service.client.errors import ProblemError
from service.client.exchange import ANSWER_SECONDS, Call, Steps, carried_out, pauses
from service.client.messages import ClassAdded, Feedback, Model, Prediction, Status, Taken, as_json

JSON = {"Content-Type": "application/json"}
PREDICTED = ("model_version", "predictions")
LONGEST_WAIT = 30.0  # seconds, that the service lets a request wait

Counted = Literal["instances", "feedback"]


class Calls:
    """The calls of one client. It remembers the limits of the service once they were needed."""

    def __init__(self, patience: float, limits: Limits | None) -> None:
        self._patience = patience
        self._limits = limits

    def predict(self, instances: Iterable[Any], top_k: int | None) -> Steps[list[Prediction]]:
        """Ask for the answers to instances, in as many requests as that takes."""
        if (rows := rows_of(instances)) is not None:
            try:
                return (yield from self._predict_rows(rows, top_k))
            except ProblemError as problem:
                if problem.status != 415:  # a service that takes lists of numbers in JSON only
                    raise
        more = b"" if top_k is None else b',"top_k":%d' % top_k
        predictions: list[Prediction] = []
        for batch in (yield from self._batches("instances", map(as_json, instances))):
            body = yield from self._sent(batch, Call("POST", "/predict", batch.body("instances", more), JSON, named=PREDICTED))
            predictions += _predictions(body)
        return predictions

    def _predict_rows(self, rows: Rows, top_k: int | None) -> Steps[list[Prediction]]:
        """Send the rows of an array as they are."""
        path = "/predict" if top_k is None else f"/predict?top_k={top_k}"
        predictions: list[Prediction] = []
        for batch in (yield from self._batches("instances", rows.items)):
            body = yield from self._sent(batch, Call("POST", path, rows.body(batch.items), NPY, named=PREDICTED))
            predictions += _predictions(body)
        return predictions

    def feedback(self, items: Iterable[Feedback], wait: float) -> Steps[Taken]:
        """Send labels; every request is taken as a whole or not at all. The last one waits until all of them are served."""
        seqs: list[int] = []
        version = None
        for batch in (yield from self._batches("feedback", map(_as_item, items))):
            waiting = min(wait, LONGEST_WAIT) if batch.last else 0.0
            content, seconds = batch.body("feedback"), ANSWER_SECONDS + waiting
            body = yield from self._sent(
                batch, Call("POST", "/feedback", content, _headers(waiting), seconds, named=("accepted",))
            )
            seqs += [each["seq"] for each in body["accepted"]]
            version = body.get("model_version")
        return Taken(seqs, version)

    def describe(self, name: str, descriptions: Iterable[str], wait: float) -> Steps[ClassAdded]:
        """Add a class. A second time it would be refused, so it is not sent again where it may have arrived."""
        content = as_json({"name": name, "descriptions": list(descriptions)})
        headers = {**JSON, "Prefer": f"wait={math.ceil(min(wait, LONGEST_WAIT))}"}
        call = Call("POST", "/classes", content, headers, ANSWER_SECONDS + wait, repeatable=False, named=ClassAdded.named())
        return ClassAdded.of((yield from carried_out(call, self._patience)))

    def model(self) -> Steps[Model]:
        """Look at what is served."""
        return Model.of((yield from self._got("/model", Model.named())))

    def status(self, seq: int) -> Steps[Status]:
        """Look at what became of a feedback item."""
        return Status.of((yield from self._got(f"/feedback/{seq}", Status.named())))

    def wait_for(self, seq: int | None, version: int | None, seconds: float) -> Steps[int]:
        """Look again and again until a version is served, or one that decided on a feedback item."""
        if (seq is None) == (version is None):
            raise ValueError("give either seq or version")
        between = pauses(seconds)
        while seq is not None and version is None:
            status = yield from self.status(seq)
            if status.status == "pending":
                yield next(between)
            else:
                version = status.model_version or 0
        while (served := (yield from self.model()).model_version) < (version or 0):
            yield next(between)
        return served

    def limits(self) -> Steps[Limits]:
        """Return what one request may hold."""
        return self._limits or Limits.of((yield from self.document()))

    def document(self) -> Steps[dict[str, Any]]:
        """Return the OpenAPI document."""
        document: dict[str, Any] = yield from self._got("/openapi.json", ("paths",))
        self._limits = self._limits or Limits.of(document)
        return document

    def _batches(self, counted: Counted, items: Iterator[bytes]) -> Steps[Iterator[Batch]]:
        """Cut items by the limits, which one item need not ask for."""
        first = list(islice(items, 2))
        if len(first) < 2:
            return cut(first, 1, 0)
        limits = yield from self.limits()
        return cut(chain(first, items), getattr(limits, counted), limits.body_bytes)

    def _sent(self, batch: Batch, call: Call) -> Steps[Any]:
        """Send a batch. What a refusal blames is named by its place among all items."""
        try:
            return (yield from carried_out(call, self._patience))
        except ProblemError as problem:
            if batch.start:
                problem.faults = [replace(each, pointer=_moved(each.pointer, batch.start)) for each in problem.faults]
                problem.detail = _moved(problem.detail, batch.start)
            raise

    def _got(self, path: str, named: Collection[str]) -> Steps[Any]:
        return (yield from carried_out(Call("GET", path, named=named), self._patience))


def _as_item(item: Feedback) -> bytes:
    """Return a labelled item as JSON. Raises TypeError for what is none, ValueError for what JSON does not have."""
    if not isinstance(item, Feedback):
        raise TypeError(f"feedback takes Feedback(instance=..., label=...), not {type(item).__name__}")
    return item.as_json()


def _headers(wait: float) -> dict[str, str]:
    return {**JSON, "Prefer": f"wait={math.ceil(wait)}"} if wait else JSON


def _predictions(body: dict[str, Any]) -> list[Prediction]:
    return [Prediction(each.pop("id"), body["model_version"], each) for each in body["predictions"]]


def _moved(pointer: str, by: int) -> str:
    return re.sub(r"^(/\w+/)(\d+)", lambda match: f"{match[1]}{int(match[2]) + by}", pointer)
