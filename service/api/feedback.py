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
from service.api.schemas import Contract, FeedbackAccepted, FeedbackItem, FeedbackRequest, FeedbackStatus
from service.api.service import Service
from service.fates import fate_of
from service.store import EntryKind, MissingInstance, NewEntry, Prediction

JOIN_PATIENCE = 0.5  # seconds in which another worker's journal entry may still be on its way
JOIN_PAUSE = 0.025
KEY_HEADER = "Idempotency-Key"


def routes(service: Service, contract: Contract) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["feedback"], route_class=Guarded)

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
        entries, classes = await _read(service, contract, request)
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


async def _read(service: Service, contract: Contract, request: Request) -> tuple[list[NewEntry], list[Sequence[str]]]:
    """Return what a request brings, and the classes that each item names. What it was made of need not wait for the disk."""
    sent = parse_json(contract.feedback, await read_json(request, service.settings.limits.body_bytes))
    keep_pace(service.pace, request, len(sent.feedback))
    service.check_backlog()
    _check_sources(sent.feedback)
    labels = _labels(service.model.head, sent.feedback)
    entries = await _entries(service, sent, labels, source_of(request), _request_key(request))
    return entries, list(map(service.model.head.classes_of, labels))


async def _accepted(service: Service, request: Request, seqs: Sequence[int]) -> Response:
    last, wait = max(seqs), wait_of(request)
    version = await service.served.contains(last, wait) if wait is not None else None
    answer: dict[str, Any] = {"accepted": [{"seq": seq} for seq in seqs], "log_seq": last}  # FeedbackAccepted, for many items
    tell(request, seq=last, items=len(seqs), version=version)
    headers = {"Location": f"/feedback/{last}"}
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait:g}"
    if version is not None:
        answer["model_version"] = version
        headers["Model-Version"] = str(version)
    return Response(to_json(answer), 202 if version is None else 200, headers, JSON)


async def _entries(
    service: Service, sent: FeedbackRequest, labels: Sequence[Label], source: str | None, request_key: str | None
) -> list[NewEntry]:
    """Turn the request into entries of the log: predictions joined, keys and fingerprints set."""
    items = sent.feedback
    instances = await _instances(service, items)
    trace = traces.here()
    entries = [
        NewEntry(
            instance=instance,
            label=to_json(label).decode(),
            digest=digest,
            weight=item.weight,
            key=key,
            source=source,
            prediction_id=item.prediction_id,
            trace=trace,
        )
        for item, label, instance, (key, digest) in zip(items, labels, instances, _keys(sent, request_key), strict=True)
    ]
    entries = await _joined(service, entries)
    await _check_labels(service, labels, [entry.instance for entry in entries])
    return entries


async def _joined(service: Service, entries: list[NewEntry]) -> list[NewEntry]:
    """Give the entries of predictions what was predicted of what. Raises Problem 422 for one that is gone, and has no key."""
    places = {index: entry.prediction_id for index, entry in enumerate(entries) if entry.prediction_id is not None}
    predictions = await join(service, list(places.values()))
    traces.link(prediction.trace for prediction in predictions.values())
    for index, id in places.items():
        if prediction := predictions.get(id):
            entries[index] = entries[index]._replace(
                instance=prediction.instance, predicted_by=prediction.version, answer=prediction.answer
            )
        elif entries[index].key is None:
            raise of_append(MissingInstance(index))
    return entries


def _keys(sent: FeedbackRequest, request_key: str | None) -> list[tuple[str | None, bytes]]:
    """Return the key of each item, its own or one made of the request's, and the fingerprint of what came under it."""
    whole = _digest(sent) if request_key else b""
    return [
        (item.key, _digest(item)) if item.key else (f"{KEY_HEADER}:{request_key}#{index}" if request_key else None, whole)
        for index, item in enumerate(sent.feedback)
    ]


def _labels(head: Head, items: Sequence[FeedbackItem]) -> list[Label]:
    """Return the labels as the log keeps them. Raises Problem 422."""
    labels = []
    for index, item in enumerate(items):
        try:
            labels.append(head.parse_label(item.label))
        except LabelError as exc:
            raise at(f"/feedback/{index}/label{exc.pointer}", exc) from exc
    return labels


def _check_sources(items: Sequence[FeedbackItem]) -> None:
    """Raise Problem 422 for an item that says of two things, or of nothing, what its label is for."""
    for index, item in enumerate(items):
        if (item.prediction_id is None) == (item.instance is None):
            detail = "give either prediction_id or instance"
            pointer = f"/feedback/{index}"
            raise Problem(INVALID, f"{pointer}: {detail}", faults=[Fault(pointer=pointer, detail=detail)])


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


async def _instances(service: Service, items: Sequence[FeedbackItem]) -> list[bytes | None]:
    """Return what the log keeps of the instances that were sent along, once they are known to be readable."""
    kind = service.model.input
    parsed: dict[int, Any] = {}
    for index, item in enumerate(items):
        if item.instance is not None:
            try:
                parsed[index] = kind.parse(item.instance)
            except InstanceError as exc:
                raise at(f"/feedback/{index}/instance", exc) from exc
    if kind.slow:  # no other fails at what was parsed
        await service.prepare(list(parsed.values()), [f"/feedback/{index}/instance" for index in parsed])
    return [kind.dump(parsed[index]) if index in parsed else None for index in range(len(items))]


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
