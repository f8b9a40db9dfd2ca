"""Classes that are named, and described, before their first label."""

from __future__ import annotations

import asyncio
import json
import os
import unicodedata
from collections.abc import Sequence
from functools import partial
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, TypeAdapter
from pydantic_core import to_json
from starlette.convertors import Convertor, register_url_convertor

from models.errors import LabelError
from service import traces
from service.api.access import keep_pace, source_of
from service.api.bodies import JSON, parse_json, read_json, wait_of
from service.api.documentation import class_body, problems
from service.api.problems import CLASS_KNOWN, INVALID, KEY_BUSY, NOT_FOUND, RETRY_AFTER, Problem, at
from service.api.routing import Guarded
from service.api.schemas import MOST_LISTED, ChangedClass, ClassAccepted, ClassDescription, ClassList, KnownClass, NewClass
from service.api.service import Service
from service.fates import refusal
from service.serving.served import Serving
from service.store import KeyBusy, KeyReused, NewEntry

WAIT = 10.0  # seconds for the new version, where the client does not say how long

NEW = TypeAdapter(NewClass)
CHANGED = TypeAdapter(ChangedClass)
Name = Annotated[str, Path(min_length=1, max_length=200), AfterValidator(partial(unicodedata.normalize, "NFC"))]


class _AnyName(Convertor[str]):
    """The rest of a path, whatever characters a label has: Starlette's own stops at the end of a line."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("label", _AnyName())


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["classes"], route_class=Guarded)
    limit = service.settings.limits.body_bytes

    @router.get("/classes", response_model=ClassList, responses=problems(422, 503))
    async def classes(
        response: Response,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = MOST_LISTED,
        offset: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    ) -> ClassList:
        """List the classes of the model that is served, a page at a time: a catalogue may have a great many."""
        serving = service.serving()
        response.headers["Model-Version"] = str(serving.version.version)
        listed = [_known(serving, name) for name in serving.labels[offset : offset + limit]]
        return ClassList(model_version=serving.version.version, count=len(serving.labels), classes=listed)

    @router.get("/classes/{name:label}", response_model=KnownClass, responses=problems(404, 422, 503))
    async def one_class(name: Name, response: Response) -> KnownClass:
        """Show a class of the model that is served."""
        serving = service.serving()
        response.headers["Model-Version"] = str(serving.version.version)
        if name not in serving.labels:
            raise _unknown(name)
        return _known(serving, name)

    @router.post(
        "/classes",
        status_code=201,
        summary="Name a class",
        responses={201: {"model": ClassAccepted, "description": "Durable"}, **problems(400, 409, 413, 415, 422, 429, 503)},
        openapi_extra=class_body(NewClass, {"name": "zebra", "description": "a horse with black and white stripes"}),
    )
    async def new_class(request: Request) -> Response:
        """Name a class before its first label. With a description it is predicted at once, where the model reads these."""
        sent = parse_json(NEW, await read_json(request, limit))
        seq = await _take_new(service, request, sent)
        accepted = ClassAccepted(name=sent.name, descriptions=sent.texts(), seq=seq)
        return await _accepted(service, request, accepted, 201, location=f"/classes/{quote(sent.name, safe='')}")

    @router.patch(
        "/classes/{name:label}",
        summary="Describe a class anew",
        responses={200: {"model": ClassAccepted, "description": "Durable"}, **problems(400, 404, 413, 415, 422, 429, 503)},
        openapi_extra=class_body(ChangedClass, {"descriptions": ["a striped horse", "an animal of the savanna"]}),
    )
    async def changed_class(name: Name, request: Request) -> Response:
        """Put descriptions in the place of those that a class has. None leaves it to be learned from labels."""
        sent = parse_json(CHANGED, await read_json(request, limit))
        seq = await _take_changed(service, request, name, sent)
        return await _accepted(service, request, ClassAccepted(name=name, descriptions=sent.texts(), seq=seq), 200)

    return router


def _known(serving: Serving, name: str) -> KnownClass:
    judged = (serving.version.by_class or {}).get(name, {"items": 0})
    return KnownClass(name=name, descriptions=list(serving.descriptions.get(name, [])), items=judged["items"])


def _unknown(name: str) -> Problem:
    return Problem(NOT_FOUND, f"the model that is served has no class {name!r}")


def _is_known(name: str) -> Problem:
    return Problem(CLASS_KNOWN, f"{name!r} is known; PATCH /classes/{quote(name, safe='')} changes its descriptions")


def _check(service: Service, name: str, sent: ClassDescription) -> None:
    """Raise Problem 422 for what the learner could not take."""
    described = "/description" if sent.description is not None else "/descriptions"
    for pointer, texts in (("/name", []), (described, sent.texts())):
        try:
            service.model.head.check_class(name, texts)
        except LabelError as exc:
            raise at(pointer, exc) from exc


async def _take_new(service: Service, request: Request, sent: NewClass) -> int:
    """Return the sequence number of a class that is named. Raises Problem where it can't be, or is known."""
    _check(service, sent.name, sent)
    if sent.name in service.serving().labels:
        raise _is_known(sent.name)
    keep_pace(service.pace, request, 1)
    service.check_backlog()
    with service.newcomers.reserved(service.serving(), [[sent.name]], "/name") as reserved:
        seq = await _named(service, source_of(request), sent.name, sent.texts())
        reserved.until(seq)
    return seq


async def _take_changed(service: Service, request: Request, name: str, sent: ChangedClass) -> int:
    """Return the sequence number of a class's new descriptions. Raises Problem where it is not known, or can't have them."""
    if name not in service.serving().labels and await _waiting(service, name) is None:
        raise _unknown(name)
    _check(service, name, sent)
    keep_pace(service.pace, request, 1)
    service.check_backlog()
    return await _append(service, source_of(request), name, sent.texts(), key=None)


async def _named(service: Service, source: str | None, name: str, texts: Sequence[str]) -> int:
    """Bring a new class into the log; return its sequence number. Raises Problem 409 where another request names it."""
    try:
        return await _append(service, source, name, texts, key=name)
    except KeyBusy as exc:
        raise Problem(KEY_BUSY, f"{name!r} is being named by another request", headers=RETRY_AFTER) from exc
    except KeyReused as exc:
        if await _waiting(service, name) is not None:
            raise _is_known(name) from exc
        return await _append(service, source, name, texts, key=None)  # it was named before, and the learner could not take it


async def _waiting(service: Service, name: str) -> int | None:
    """Return the sequence number of a class that was named, unless it was quarantined."""
    seqs = await asyncio.to_thread(service.feedback.find, "class", name)
    if not seqs or await _refusal(service, seqs[0]) is not None:
        return None
    return seqs[0]


async def _refusal(service: Service, seq: int) -> str | None:
    """Return why the learner quarantined an entry, None where it did not."""
    return await asyncio.to_thread(refusal, service.checkpoints, seq)


async def _append(service: Service, source: str | None, name: str, texts: Sequence[str], key: str | None) -> int:
    declared = json.dumps({"name": name, "descriptions": list(texts)})
    # A name is given once: the fingerprint is one that no second request can have.
    entry = NewEntry(
        kind="class", instance=b"", label=declared, digest=os.urandom(16), key=key, source=source, trace=traces.here()
    )
    (seq,) = await asyncio.wrap_future(service.feedback.append([entry]))
    return seq


async def _accepted(
    service: Service, request: Request, accepted: ClassAccepted, status: int, location: str | None = None
) -> Response:
    asked = wait_of(request)
    version = await service.served.contains(accepted.seq, WAIT if asked is None else asked)
    headers = {} if asked is None else {"Preference-Applied": f"wait={asked:g}"}
    if version is not None:
        if (reason := await _refusal(service, accepted.seq)) is not None:
            raise Problem(INVALID, f"the learner could not take the class: {reason}")
        accepted.model_version = version
        headers["Model-Version"] = str(version)
    if location is not None:
        headers["Location"] = location
    return Response(to_json(accepted, exclude_none=True), status, headers, JSON)
