"""Acts of an admin: rollback, release, forget. Each is an entry of the log, and carried out in its place."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from service import traces
from service.api.access import note, source_of
from service.api.bodies import JSON, parse_json, read_json, wait_of
from service.api.documentation import act_body, problems
from service.api.feedback import status_of
from service.api.problems import INVALID, NOT_FOUND, Fault, Problem
from service.api.routing import Guarded
from service.api.schemas import ActAccepted, FeedbackStatus, ForgetRequest, ReleaseRequest, RollbackRequest
from service.api.service import Service
from service.api.versions import known_version
from service.erasure import UnknownFeedback, asked
from service.fates import refusal
from service.store import ACTS, ActKind, NewEntry, Version

PAUSE = 0.02  # seconds between two looks at what is left of an act

ROLLBACK, RELEASE, FORGET = TypeAdapter(RollbackRequest), TypeAdapter(ReleaseRequest), TypeAdapter(ForgetRequest)


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["acts"], route_class=Guarded)
    limit = service.settings.limits.body_bytes

    @router.post("/rollback", summary="Go back to a version", **_described(RollbackRequest, {"to": 17}))
    async def rollback(request: Request) -> Response:
        """Make a new version with the weights and the learning state of an older one; learning goes on from it."""
        sent = parse_json(ROLLBACK, await read_json(request, limit))
        await asyncio.to_thread(known_version, service, sent.to)
        note(request, to=sent.to, reapply=sent.reapply)
        return await _carried_out(service, request, "rollback", {"to": sent.to, "reapply": sent.reapply})

    @router.post("/release", summary="Learn what is in quarantine", **_described(ReleaseRequest, {"version": 18}))
    async def release(request: Request) -> Response:
        """Learn what a version quarantined, whatever the gate says of it."""
        sent = parse_json(RELEASE, await read_json(request, limit))
        target = await asyncio.to_thread(known_version, service, sent.version)
        if not target.quarantined:
            detail = f"version {sent.version} has nothing in quarantine"
            raise Problem(INVALID, f"/version: {detail}", faults=[Fault(pointer="/version", detail=detail)])
        note(request, version=sent.version)
        return await _carried_out(service, request, "release", {"version": sent.version})

    @router.post("/forget", summary="Unlearn and erase feedback", **_described(ForgetRequest, {"seqs": [101, 102]}))
    async def forget(request: Request) -> Response:
        """Make the model that never saw this feedback, serve it, and erase what the feedback said from the disk."""
        sent = parse_json(FORGET, await read_json(request, limit))
        return await _carried_out(service, request, "forget", await asyncio.to_thread(_asked, service, sent))

    @router.get(
        "/acts/{seq}", response_model=FeedbackStatus, response_model_exclude_none=True, responses=problems(404, 422, 503)
    )
    def status(seq: int) -> FeedbackStatus:
        """Say what became of an act: pending, applied by a version, or quarantined with the reason why it can't be done."""
        return _status(service, seq)

    return router


def _described(schema: type[BaseModel], example: Any) -> dict[str, Any]:
    """Return what the document says of every act alike."""
    answers: dict[int | str, dict[str, Any]] = {
        200: {"model": ActAccepted, "description": "Carried out, and served"},
        202: {"model": ActAccepted, "description": "Durable; GET the Location to see what became of it"},
    }
    responses = {**answers, **problems(400, 404, 413, 415, 422, 429, 503)}
    return {"status_code": 202, "responses": responses, "openapi_extra": act_body(schema, example)}


def _asked(service: Service, sent: ForgetRequest) -> dict[str, Any]:
    """Return what is to be forgotten. Raises Problem 404 for what is not there."""
    try:
        return asked(service.feedback, seqs=sent.seqs or (), keys=sent.keys or (), source=sent.source)
    except UnknownFeedback as exc:
        raise Problem(NOT_FOUND, str(exc)) from exc


async def _carried_out(service: Service, request: Request, kind: ActKind, what: Any) -> Response:
    """Bring the act into the log; wait for it as long as the client prefers."""
    entry = NewEntry(
        kind=kind, instance=b"", label=json.dumps(what), digest=b"", source=source_of(request), trace=traces.here()
    )
    (seq,) = await asyncio.wrap_future(service.feedback.append([entry]))
    note(request, seq=seq)
    wait = wait_of(request)
    headers = {"Location": f"/acts/{seq}"}
    answer = ActAccepted(seq=seq)
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait:g}"
        deadline = time.monotonic() + wait
        served = await service.served.until(partial(_settled, service, seq), wait)
        if served is not None and (reason := await asyncio.to_thread(refusal, service.checkpoints, seq)):
            raise Problem(INVALID, f"it could not be carried out: {reason}")
        if served is not None and await _over(service, seq, deadline):
            answer.model_version = served
    status = 202 if answer.model_version is None else 200
    return Response(to_json(answer, exclude_none=True), status, headers, JSON)


async def _over(service: Service, seq: int, deadline: float) -> bool:
    """Wait until nothing is left of an act: what was unlearned is erased after the version is served. Return whether it is."""
    while (await asyncio.to_thread(_status, service, seq)).status == "pending":
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(PAUSE)
    return True


def _status(service: Service, seq: int) -> FeedbackStatus:
    return status_of(service, seq, "act", kinds=ACTS)


def _settled(service: Service, seq: int, served: Version) -> bool:
    """Return whether the version that is served is one for which an act is carried out, or refused."""
    made = service.checkpoints.made_by(seq)
    if made is not None:
        return served.version >= made.version
    return refusal(service.checkpoints, seq) is not None
