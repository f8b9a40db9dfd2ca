"""Errors as RFC 9457 problem+json. This is the one place that turns an exception into an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from models.errors import InstanceError, LabelError, Unreadable
from service.serving.batcher import Overloaded
from service.serving.engine import NotReady
from service.serving.examiner import Withdrawn
from service.store import DataDirectoryError, KeyBusy, KeyReused, LogBusy, MissingInstance, StoreUnavailable
from service.store.errors import AppendRefused

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
MAX_ERRORS = 20  # in one answer
MOST_FAULTS = 10_000  # in one body, that are looked at


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem, known to clients by its `type`."""

    name: str
    status: int
    title: str


MALFORMED = Kind("malformed", 400, "The body can't be read.")
UNAUTHENTICATED = Kind("unauthenticated", 401, "The service does not know who calls.")
FORBIDDEN = Kind("forbidden", 403, "The caller may not do this.")
NOT_FOUND = Kind("not-found", 404, "There is no such thing.")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "The path does not take this method.")
TOO_SLOW = Kind("too-slow", 408, "The request did not come in time.")
NO_CLASSES = Kind("no-classes", 409, "No class is known yet.")
CLASS_KNOWN = Kind("class-known", 409, "The class is known already.")
KEY_BUSY = Kind("key-busy", 409, "Feedback with the same key is still being written.")
CHECKPOINT_GONE = Kind("checkpoint-gone", 410, "The version's checkpoint is not kept any longer.")
TOO_LARGE = Kind("too-large", 413, "The body is larger than the limit.")
UNSUPPORTED = Kind("unsupported-media-type", 415, "The media type is not one that this model takes.")
INVALID = Kind("invalid", 422, "A part of the request has a wrong shape, type or value.")
TOO_MANY_CLASSES = Kind("too-many-classes", 422, "There is no room for another class.")
KEY_REUSED = Kind("key-reused", 422, "The key is known with different content.")
UNKNOWN_PREDICTION = Kind("unknown-prediction", 422, "The prediction is unknown or has expired.")
BACKLOG = Kind("backlog", 429, "Too much feedback waits for the learner.")
TOO_FAST = Kind("too-fast", 429, "The source sends more feedback than it may.")
HEAD_TOO_LARGE = Kind("head-too-large", 431, "The head of the request is larger than the limit.")
CLIENT_GONE = Kind("client-gone", 499, "The client closed the connection.")
INTERNAL = Kind("internal", 500, "Something went wrong in the service.")
NOT_EXPLAINED = Kind("not-explained", 501, "This model's answers can't be explained.")
OVERLOADED = Kind("overloaded", 503, "More is asked than can be answered in time.")
STORE_UNAVAILABLE = Kind("store-unavailable", 503, "The store can't be written at the moment.")
NOT_READY = Kind("not-ready", 503, "The service is starting or stopping.")


class Fault(BaseModel):
    """A part of the body that is to blame."""

    pointer: str
    detail: str


class ProblemDetails(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = None
    reasons: list[str] | None = None


class Problem(Exception):
    """An error that is answered as problem+json."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        reasons: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`reasons` are words for machines, where there may be several."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.faults = faults
        self.reasons = reasons
        self.headers = headers

    def response(self) -> Response:
        """Return the answer."""
        details: dict[str, Any] = {
            "type": f"urn:everlearn:problem:{self.kind.name}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        if self.faults:
            details["errors"] = [fault.model_dump() for fault in self.faults]
        if self.reasons:
            details["reasons"] = self.reasons
        return Response(to_json(details), self.kind.status, self.headers, MEDIA_TYPE)

    def in_inference_protocol(self) -> Response:
        """Return the answer as the Open Inference Protocol has errors."""
        return Response(to_json({"error": self.detail}), self.kind.status, self.headers, "application/json")


def at(pointer: str, error: InstanceError | LabelError) -> Problem:
    """Return the problem of an instance or label that the model can't take."""
    fault = Fault(pointer=pointer, detail=str(error))
    return Problem(MALFORMED if isinstance(error, Unreadable) else INVALID, _told(fault), faults=[fault])


def invalid_json(error: ValidationError, body: bytes) -> Problem:
    """Return the problem of a body that pydantic refused: 400 where it is no JSON, else 422 with pointers."""
    if error.error_count() <= MOST_FAULTS and (first := error.errors(include_url=False)[0])["type"] == "json_invalid":
        return Problem(MALFORMED, first["msg"])
    return invalid(error, lambda: from_json(body))


def invalid(error: ValidationError, value: Callable[[], Any]) -> Problem:
    """Return the problem of a value that pydantic refused, with pointers into it."""
    if error.error_count() > MOST_FAULTS:  # to list them would take seconds, and gigabytes
        return Problem(INVALID, f"the body has {error.error_count()} faults")
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    faults = _faults(errors, value())
    return Problem(INVALID, _told(faults[0]), faults=faults)


def of_append(refusal: AppendRefused) -> Problem:
    """Return the problem of a feedback request that the log refused, by the item that is to blame."""
    kind, detail = {
        KeyReused: (KEY_REUSED, "this key came before with different content; it stays with the first"),
        KeyBusy: (KEY_BUSY, "feedback with this key is still being written; try again"),
        MissingInstance: (UNKNOWN_PREDICTION, "the prediction is unknown or has expired; send the instance instead"),
    }[type(refusal)]
    headers = RETRY_AFTER if kind is KEY_BUSY else None
    pointer = f"/feedback/{refusal.index}"
    return Problem(kind, f"{pointer}: {detail}", faults=[Fault(pointer=pointer, detail=detail)], headers=headers)


EXPECTED = (
    *(Problem, AppendRefused, LogBusy, StoreUnavailable, DataDirectoryError, Overloaded, NotReady, Withdrawn),
    *(ClientDisconnect, HTTPException, RequestValidationError),
)
"""What may be raised on purpose."""


def install(app: FastAPI) -> None:
    """Have the app answer every error as problem+json."""

    async def answer(request: Request, exc: Exception) -> Response:
        if isinstance(exc, HTTPException) and exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            exc.headers = _allowed(app, request) or exc.headers
        return answer_to(exc, request.scope["path"])

    for error in EXPECTED:
        app.add_exception_handler(error, answer)


def _allowed(app: FastAPI, request: Request) -> dict[str, str] | None:
    """Return all methods of a path: routes that share one are several to Starlette, which names the first one's only."""
    operations = app.openapi()["paths"].get(getattr(request.scope.get("route"), "path_format", None))
    return {"Allow": ", ".join(sorted(map(str.upper, operations)))} if operations else None


def answer_to(exc: BaseException, path: str) -> Response:
    """Return the answer to what was raised, be it on purpose or not. Below /v2 it has the form of that protocol."""
    problem = _problem_of(exc)
    return problem.in_inference_protocol() if f"{path}/".startswith("/v2/") else problem.response()


def _problem_of(exc: BaseException) -> Problem:
    match exc:
        case Problem():
            return exc
        case AppendRefused():
            return of_append(exc)
        case LogBusy():
            return Problem(BACKLOG, str(exc), headers=RETRY_AFTER)
        case StoreUnavailable():
            log.error("api.store_failed: %s", exc)
            return Problem(STORE_UNAVAILABLE, "nothing of this request was taken; try again", headers=RETRY_AFTER)
        case DataDirectoryError():
            log.error("api.store_damaged: %s", exc)
            return Problem(STORE_UNAVAILABLE, "the data is damaged; the log of the service says what is to be done")
        case Overloaded():
            return Problem(OVERLOADED, str(exc), headers=RETRY_AFTER)
        case NotReady():
            return Problem(NO_CLASSES, "send feedback with a label first: it becomes the first class")
        case ClientDisconnect():
            return Problem(CLIENT_GONE, "the rest of the request did not come")
        case RequestValidationError():
            faults = [Fault(pointer=_pointer(error["loc"]), detail=error["msg"]) for error in exc.errors()]
            return Problem(INVALID, _told(faults[0]), faults=faults[:MAX_ERRORS])
        case asyncio.CancelledError() | Withdrawn():  # the server's grace is over
            return Problem(NOT_READY, "the service stopped before the request was completed", headers=RETRY_AFTER)
        case HTTPException():
            return _of_http(exc)
        case _:
            return Problem(INTERNAL, "the request was not completed; the log of the service says why")


def _of_http(exc: HTTPException) -> Problem:
    match HTTPStatus(exc.status_code):
        case HTTPStatus.NOT_FOUND:
            return Problem(NOT_FOUND, "there is nothing at this path")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return Problem(METHOD_NOT_ALLOWED, "this path does not take this method", headers=exc.headers)
        case status:
            return Problem(Kind("http", status, status.phrase), str(exc.detail), headers=exc.headers)


def _told(fault: Fault) -> str:
    return f"{fault.pointer or 'the body'}: {fault.detail}"


def _faults(errors: Sequence[ErrorDetails], body: Any) -> list[Fault]:
    """Return one fault per place; a union's branches, each with its own error, become one."""
    details: dict[str, dict[str, None]] = {}
    for error in errors:
        details.setdefault(_pointer(_places(error, body)), {})[error["msg"].removeprefix("Value error, ")] = None
    return [Fault(pointer=pointer, detail=", or: ".join(found)) for pointer, found in details.items()][:MAX_ERRORS]


def _places(error: ErrorDetails, body: Any) -> Iterator[str | int]:
    """Yield the parts of the error's location that are in the body: pydantic adds the names of a union's branches."""
    for part in error["loc"]:
        if isinstance(body, dict) and part in body:
            body = body[str(part)]
            yield part
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            body = body[part]
            yield part
        elif error["type"] == "missing" and part == error["loc"][-1]:
            yield part


def _pointer(places: Sequence[str | int] | Iterator[str | int]) -> str:
    """Return a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(place).replace("~", "~0").replace("/", "~1") for place in places)
