"""POST /feedback and what became of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from models.base import Head, Label
from models.errors import InstanceError, LabelError
from service import traces
from service.api.access import keep_pace, source_of
from service.api.bodies import JSON, parse_json, read_json, wait_of
from service.api.documentation import feedback_body, problems
from service.api.edge import tell
from service.api.problems import INVALID, NOT_FOUND, Fault, Problem, at, of_append
from service.api.routing import Guarded
from service.api.schemas import Accepted, Contract, FeedbackAccepted, FeedbackItem, FeedbackRequest, FeedbackStatus
from service.api.service import Service
from service.fates import fate_of
from service.store import EntryKind, MissingInstance, NewEntry, Prediction

JOIN_PATIENCE = 0.5  # seconds in which another worker's journal entry may still be on its way
JOIN_PAUSE = 0.025
KEY_HEADER = "Idempotency-Key"


def routes(service: Service, contract: Contract) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["feedback"], route_class=Guarded)
    limits = service.settings.limits

    @router.post(
        "/feedback",
        status_code=202,
        summary="Send labels",
        responses={
            200: {"model": FeedbackAccepted, "description": "Durable, and in the version that is served"},
            202: {"model": FeedbackAccepted, "description": "Durable"},
            **problems(400, 409, 413, 415, 422, 429, 503),
        },
        openapi_extra=feedback_body(service.model),
    )
    async def feedback(request: Request) -> Response:
        """Take labels, all of the request or none. Every answer with 2xx is on stable storage."""
        sent = parse_json(contract.feedback, await read_json(request, limits.body_bytes))
        keep_pace(service.pace, request, len(sent.feedback))
        service.check_backlog()
        labels = _labels(service, sent)
        entries = await _entries(service, sent, labels, source_of(request), _request_key(request))
        classes = list(map(service.model.head.classes_of, labels))
        with service.newcomers.reserved(service.served.now, classes) as reserved:
            seqs = await asyncio.wrap_future(service.feedback.append(entries))
            reserved.until(max(seqs))
        return await _accepted(service, request, seqs)

    @router.get(
        "/feedback/{seq}", response_model=FeedbackStatus, response_model_exclude_none=True, responses=problems(404, 422, 503)
    )
    def status(seq: int) -> FeedbackStatus:
        """Say what became of a feedback item, or of an act of an admin."""
        return status_of(service, seq, "feedback")

    return router


def status_of(service: Service, seq: int, what: str, *, kinds: Collection[EntryKind] | None = None) -> FeedbackStatus:
    """Return what became of an entry of the log, of certain kinds or any. Raises Problem 404."""
    entry = service.feedback.fetch([seq]).get(seq) if 0 < seq < 2**63 else None
    if entry is None or (kinds is not None and entry.kind not in kinds):
        raise Problem(NOT_FOUND, f"there is no {what} with sequence number {seq}")
    return FeedbackStatus(seq=seq, **asdict(fate_of(service.feedback, service.checkpoints, entry)))


async def _accepted(service: Service, request: Request, seqs: Sequence[int]) -> Response:
    last, wait = max(seqs), wait_of(request)
    version = await service.served.contains(last, wait) if wait is not None else None
    answer = FeedbackAccepted(accepted=[Accepted(seq=seq) for seq in seqs], log_seq=last, model_version=version)
    tell(request, seq=last, items=len(seqs), version=version)
    headers = {"Location": f"/feedback/{last}"}
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait:g}"
    if version is not None:
        headers["Model-Version"] = str(version)
    return Response(to_json(answer, exclude_none=True), 202 if version is None else 200, headers, JSON)


async def _entries(
    service: Service, sent: FeedbackRequest, labels: Sequence[Label], source: str | None, request_key: str | None
) -> list[NewEntry]:
    """Turn the request into entries of the log: predictions joined, keys and fingerprints set."""
    instances = await _instances(service, sent)
    predictions = await join(service, [item.prediction_id for item in sent.feedback if item.prediction_id])
    traces.link(prediction.trace for prediction in predictions.values())
    trace = traces.here()
    whole = _digest(sent) if request_key else b""
    entries = []
    for index, (item, label, instance) in enumerate(zip(sent.feedback, labels, instances, strict=True)):
        key = item.key or (f"{KEY_HEADER}:{request_key}#{index}" if request_key else None)
        prediction = predictions.get(item.prediction_id or "")
        if item.prediction_id and prediction is None and key is None:
            raise of_append(MissingInstance(index))
        entries.append(
            NewEntry(
                instance=prediction.instance if prediction else instance,
                label=json.dumps(label),
                digest=b"" if key is None else _digest(item) if item.key else whole,
                weight=item.weight,
                key=key,
                source=source,
                prediction_id=item.prediction_id,
                predicted_by=prediction.version if prediction else None,
                answer=prediction.answer if prediction else None,
                trace=trace,
            )
        )
    await _check_labels(service, labels, [entry.instance for entry in entries])
    return entries


def _labels(service: Service, sent: FeedbackRequest) -> list[Label]:
    """Return the labels as the log keeps them. Raises Problem 422."""
    for index, item in enumerate(sent.feedback):
        _check_source(index, item)
    head = service.model.head
    return [_label(head, index, item) for index, item in enumerate(sent.feedback)]


def _check_source(index: int, item: FeedbackItem) -> None:
    if (item.prediction_id is None) == (item.instance is None):
        detail = "give either prediction_id or instance"
        raise Problem(INVALID, f"/feedback/{index}: {detail}", faults=[Fault(pointer=f"/feedback/{index}", detail=detail)])


def _label(head: Head, index: int, item: FeedbackItem) -> Label:
    try:
        return head.parse_label(item.label)
    except LabelError as exc:
        raise at(f"/feedback/{index}/label{exc.pointer}", exc) from exc


async def _check_labels(service: Service, labels: Sequence[Label], payloads: Sequence[bytes | None]) -> None:
    """Raise Problem 422 for a label that its instance can't have, off the event loop where instances are slow to read."""
    if service.model.input.slow:
        await asyncio.to_thread(_check_each, service, labels, payloads)
    else:
        _check_each(service, labels, payloads)


def _check_each(service: Service, labels: Sequence[Label], payloads: Sequence[bytes | None]) -> None:
    head, load = service.model.head, service.model.input.load
    for index, (label, payload) in enumerate(zip(labels, payloads, strict=True)):
        if payload is None:  # it was sent before, under the same key
            continue
        try:
            head.check_label(label, partial(load, payload))
        except LabelError as exc:
            raise at(f"/feedback/{index}/label{exc.pointer}", exc) from exc


async def _instances(service: Service, sent: FeedbackRequest) -> list[bytes | None]:
    """Return what the log keeps of the instances that were sent along, once they are known to be readable."""
    kind = service.model.input
    parsed: dict[int, Any] = {}
    for index, item in enumerate(sent.feedback):
        if item.instance is not None:
            try:
                parsed[index] = kind.parse(item.instance)
            except InstanceError as exc:
                raise at(f"/feedback/{index}/instance", exc) from exc
    await service.prepare(list(parsed.values()), [f"/feedback/{index}/instance" for index in parsed])
    return [kind.dump(parsed[index]) if index in parsed else None for index in range(len(sent.feedback))]


async def join(service: Service, ids: Sequence[str]) -> Mapping[str, Prediction]:
    """Find predictions by id. Another worker, or replica, may have made one a moment ago: then look again before giving up."""
    if not ids:
        return {}
    alone = service.settings.server.workers == 1 and not service.settings.learner.standby
    patience = 0.0 if alone else JOIN_PATIENCE
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        found = await asyncio.to_thread(service.journal.get, ids)
        if len(found) == len(set(ids)) or asyncio.get_running_loop().time() >= deadline:
            return found
        await asyncio.sleep(JOIN_PAUSE)


def _digest(sent: FeedbackItem | FeedbackRequest) -> bytes:
    """Return a fingerprint of what the client sent, whatever the order of its names."""
    content = sent.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _request_key(request: Request) -> str | None:
    """Return the Idempotency-Key header: a quoted string in the draft, and mostly sent without the quotes."""
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return None
    key = key.strip().removeprefix('"').removesuffix('"')
    if not 0 < len(key) <= 200:
        raise Problem(INVALID, f"{KEY_HEADER} has 1 to 200 characters")
    return key
