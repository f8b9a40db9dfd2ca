"""The FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

from service.api import acts, classes, explain, feedback, inference, operation, predict, problems, versions
from service.api.access import Access
from service.api.audit import Audited
from service.api.documentation import document
from service.api.edge import PROBES, Edge
from service.api.routing import Guarded
from service.api.schemas import contract_for
from service.api.service import Service
from service.api.shortcut import Shortcut

# Its logs would carry what exceptions say, which may be what a client sent, and it would time its own dependencies.
TELEMETRY: TelemetryConfig = {
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
    "exclude": lambda scope: scope.get("path") in PROBES,
}


def create_app(service: Service, *, exported: bool) -> ASGIApp:
    """Return the app of one API process. Its lifespan runs the service.

    `exported` says whether spans or HTTP metrics are: they are FastAPI's, so that no request may come past it.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    limits = service.settings.limits
    contract = contract_for(service.model, limits)
    routers = (
        predict.routes(service, contract),
        explain.routes(service, contract),
        feedback.routes(service, contract),
        classes.routes(service),
        versions.routes(service),
        acts.routes(service),
        operation.routes(service),
        inference.routes(service, contract),
    )
    routes = [route for router in routers for route in router.routes]
    assert all(isinstance(route, Guarded) for route in routes), "any other route would be open to everybody"
    app = FastAPI(
        title="everlearn",
        summary="The model server with a write-ahead log.",
        version=version("everlearn"),
        lifespan=lifespan,
        routes=routes,
        telemetry={**TELEMETRY, "tracing": exported, "metrics": exported},
    )
    app.state.access = Access(service.verifier, service.audit)
    problems.install(app)
    edge = partial(Edge, leaving=service.leaving, access_log=service.settings.server.access_log)
    app.add_middleware(edge)
    app.add_middleware(Audited, audit=service.audit)
    app.openapi = document(app, contract, body_bytes=limits.body_bytes, secured=service.verifier is not None)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app if exported else Shortcut(app, edge)
