"""The FastAPI application."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import metrics
from service.api import classes, explain, feedback, operation, predict, problems, versions
from service.api.documentation import document
from service.api.schemas import contract_for
from service.api.service import Service

log = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")


def create_app(service: Service) -> FastAPI:
    """Return the app of one API process. Its lifespan runs the service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="everlearn",
        summary="The model server with a write-ahead log.",
        version=version("everlearn"),
        lifespan=lifespan,
    )
    contract = contract_for(service.model, service.settings.limits)
    app.include_router(predict.routes(service, contract))
    app.include_router(explain.routes(service, contract))
    app.include_router(feedback.routes(service, contract))
    app.include_router(classes.routes(service))
    app.include_router(versions.routes(service))
    app.include_router(operation.routes(service))
    problems.install(app)
    app.add_middleware(Edge)
    app.openapi = document(app, contract)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


class Edge:
    """What every request passes: its id goes into the answer, its route, status and time into the metrics.

    Here ends what no route raises on purpose: further out, Starlette and uvicorn would answer it without an id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        answering = False

        async def send_on(message: Message) -> None:
            nonlocal answering
            if message["type"] == "http.response.start":
                answering = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
                _observe(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError):
                log.warning("api.cut_off: request %s was not completed in the grace time", request_id)
            else:
                log.error("api.failed: request %s", request_id, exc_info=exc)
            if answering:
                raise
            await problems.answer_to(exc)(scope, receive, send_on)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _observe(scope: Mapping[str, Any], status: int, seconds: float) -> None:
    # The route's pattern, never the path: a client must not be able to make new time series.
    route = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if route != "unmatched" else "any"
    metrics.requests.labels(method, route, status).inc()
    metrics.request_seconds.labels(method, route).observe(seconds)
