"""Health and metrics, for those who run the service."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.documentation import problems
from service.api.exposition import Names, exposition
from service.api.readiness import Readiness
from service.api.routing import Guarded
from service.api.schemas import Health
from service.api.service import Service


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["operation"], route_class=Guarded)
    readiness = Readiness(service)

    @router.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        """Lead a browser to the documentation."""
        return RedirectResponse("/docs")

    @router.get("/livez", response_model=Health)
    async def livez() -> Health:
        """Say that the process answers."""
        return Health(status="alive")

    @router.get("/readyz", response_model=Health, responses=problems(503))
    def readyz() -> Health:
        """Say that a model is loaded and the store can be written, or all the reasons why not."""
        readiness.check()
        return Health(status="ready")

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **problems(422)})
    def metrics(names: Names = "everlearn") -> Response:
        """Show the metrics of all processes for Prometheus; those of predictions also by the names of Triton or KServe."""
        return Response(exposition(service, names), media_type=CONTENT_TYPE_LATEST)

    return router
