"""Who calls, and whether they may: the one place that says what each route needs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from service.access import ANYBODY, AuditLog, Caller, Scope, Verifier
from service.access.pace import Pace
from service.api.problems import FORBIDDEN, TOO_FAST, UNAUTHENTICATED, Problem

OPEN = None
NEEDED: Mapping[tuple[str, str], Scope | None] = {
    ("POST", "/predict"): "predict",
    ("POST", "/explain"): "predict",
    ("GET", "/model"): "predict",
    ("GET", "/versions"): "predict",
    ("GET", "/versions/{version}"): "predict",
    ("GET", "/versions/{before}/compare/{after}"): "predict",
    ("GET", "/classes"): "predict",
    ("GET", "/classes/{name}"): "predict",
    ("GET", "/metrics"): "predict",
    ("POST", "/feedback"): "feedback",
    ("GET", "/feedback/{seq}"): "feedback",
    ("POST", "/classes"): "feedback",
    ("PATCH", "/classes/{name}"): "feedback",
    ("POST", "/rollback"): "admin",
    ("POST", "/forget"): "admin",
    ("POST", "/release"): "admin",
    ("GET", "/acts/{seq}"): "admin",
    ("GET", "/v2/models/{model}"): "predict",
    ("GET", "/v2/models/{model}/versions/{version}"): "predict",
    ("POST", "/v2/models/{model}/infer"): "predict",
    ("POST", "/v2/models/{model}/versions/{version}/infer"): "predict",
    ("GET", "/v2"): OPEN,
    ("GET", "/v2/health/live"): OPEN,
    ("GET", "/v2/health/ready"): OPEN,
    ("GET", "/v2/models/{model}/ready"): OPEN,
    ("GET", "/v2/models/{model}/versions/{version}/ready"): OPEN,
    ("GET", "/"): OPEN,
    ("GET", "/livez"): OPEN,
    ("GET", "/readyz"): OPEN,
}
"""What a caller needs for a route. One that is not here needs admin, so that a new route is closed until it is."""

BEARER = "bearer "
KEY_HEADER = "x-api-key"
REALM = 'Bearer realm="everlearn"'

CALLER = "everlearn.caller"
REQUEST_ID = "everlearn.request_id"
AUDITED = "everlearn.audited"


class Access:
    """Asked of every route. It comes before the body is read, and puts the caller into the request's scope."""

    def __init__(self, verifier: Verifier | None, audit: AuditLog) -> None:
        self._verifier = verifier
        self._audit = audit

    async def __call__(self, request: Request) -> None:
        """Raise Problem 401 or 403. An admin act is on record, on stable storage, before it begins."""
        needed = needed_by(request.method, request.scope["route"].path_format)
        if needed is OPEN:
            return
        caller = ANYBODY if self._verifier is None else _caller(request, self._verifier)
        if needed not in caller.scopes:
            challenge = {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{needed}"'}
            raise Problem(FORBIDDEN, f"this needs the scope {needed!r}", headers=challenge)
        request.scope[CALLER] = caller
        if needed == "admin" and request.method != "GET":  # to look at an act is none
            await self._record(request, caller)

    async def _record(self, request: Request, caller: Caller) -> None:
        record = {
            "request_id": request.scope[REQUEST_ID],
            "source": caller.source,
            "client": request.client.host if request.client else None,
            "act": f"{request.method} {request.scope['route'].path_format}",
        }
        await asyncio.to_thread(self._audit.append, {**record, "event": "asked"})
        request.scope[AUDITED] = record


def needed_by(method: str, path: str) -> Scope | None:
    """Return what a route needs, by its method and pattern."""
    return NEEDED.get((method, path), "admin")


def source_of(request: Request) -> str | None:
    """Return the name under which the log records what this request teaches."""
    caller: Caller = request.scope[CALLER]
    return caller.source


def keep_pace(pace: Pace, request: Request, items: int) -> None:
    """Raise Problem 429 where the source has taught too much lately. What is refused later on has been counted too."""
    wait = pace.take(source_of(request), items)
    if wait:
        headers = {"Retry-After": str(math.ceil(wait))}
        raise Problem(TOO_FAST, f"there is room for these items in {math.ceil(wait)} s", headers=headers)


def note(request: Request, **facts: Any) -> None:
    """Put plain facts of an admin act on its record: a version's number, how many items; never what a client sent as text."""
    request.scope[AUDITED].update(facts)


def _caller(request: Request, verifier: Verifier) -> Caller:
    """Return who calls. Raises Problem 401."""
    given = _credentials(request)
    if len(given) != 1:
        detail = "send one key, as Authorization: Bearer or X-API-Key" if not given else "send one credential, not several"
        raise Problem(UNAUTHENTICATED, detail, headers={"WWW-Authenticate": REALM})
    caller = verifier.caller(given[0])
    if caller is None:
        challenge = {"WWW-Authenticate": f'{REALM}, error="invalid_token"'}
        raise Problem(UNAUTHENTICATED, "this key or token is not valid, or not any longer", headers=challenge)
    return caller


def _credentials(request: Request) -> list[str]:
    bearers = [value for value in request.headers.getlist("authorization") if value[: len(BEARER)].lower() == BEARER]
    return [*(value[len(BEARER) :].strip() for value in bearers), *request.headers.getlist(KEY_HEADER)]
