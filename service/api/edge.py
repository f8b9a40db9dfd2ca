"""The edge of the application: what every request passes on its way in, and every answer on its way out."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import threading
import time
from functools import cache
from typing import Any, Literal

from fastapi import Request
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import metrics, traces
from service.api import problems
from service.api.access import CALLER, REQUEST_ID
from service.trails import report

log = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")
FACTS = "everlearn.facts"
PROBES = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
"""Routes that machines ask every few seconds: their answers are no events, unless they are errors."""


class Edge:
    """Puts a request's id into the answer, and its route, status and time into the metrics, the log and the trace.

    Here ends what no route raises on purpose: further out, Starlette and uvicorn would answer it without an id.
    """

    def __init__(self, app: ASGIApp, *, leaving: threading.Event, access_log: Literal["none", "errors", "all"]) -> None:
        self._app = app
        self._leaving = leaving
        self._logged_from = {"none": 1000, "errors": 400, "all": 0}[access_log]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope[REQUEST_ID] = _request_id(scope)
        answering = False

        async def send_on(message: Message) -> None:
            nonlocal answering
            if message["type"] == "http.response.start":
                answering = True
                headers = message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if self._leaving.is_set():  # a connection that a gateway keeps would outlive what it learns of us
                    headers.append((b"connection", b"close"))
                self._observe(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError):
                log.warning("api.cut_off: it was not completed in the grace time", extra={"request_id": request_id})
            else:
                report(log, logging.ERROR, "api.failed", exc, request_id=request_id)
            if answering:
                raise
            await problems.answer_to(exc, scope["path"])(scope, receive, send_on)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, never the path: a client must not be able to make new time series.
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if route != "unmatched" else "any"
        count, time_taken = _series(method, route, status)
        count.inc()
        time_taken.observe(seconds)
        facts = scope.get(FACTS, {})
        traces.tell(request_id=scope[REQUEST_ID], **facts)
        if status >= self._logged_from and (status >= 400 or route not in PROBES):
            source = scope[CALLER].source if CALLER in scope else None
            answered = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6)}
            log.info("http.answered", extra={**answered, "request_id": scope[REQUEST_ID], "source": source, **facts})


def tell(request: Request, **facts: Any) -> None:
    """Put plain facts of what was answered into its line of the log and its span: numbers, never what a client sent as text."""
    request.scope[FACTS] = facts


@cache
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return metrics.requests.labels(method, route, status), metrics.request_seconds.labels(method, route)


def _request_id(scope: Scope) -> str:
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    if SANE_ID.fullmatch(given):
        return given
    # It is no secret. For numbers of the system's own the interpreter's lock is let go of, and a busy thread keeps it for long.
    return f"{random.getrandbits(128):032x}"
