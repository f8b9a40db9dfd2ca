"""Health and metrics, for those who run the service."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.api.documentation import problems
from service.api.problems import NOT_READY, RETRY_AFTER, Problem
from service.api.schemas import Health
from service.api.service import Service

WRITABLE_SECONDS = 1.0  # for which a check of the store holds: probes come often, and each check is an fsync


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["operation"])
    writable = _Writable(service)

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
        """Say that a model is loaded and the store can be written."""
        if service.served.draining:
            raise Problem(NOT_READY, "the service is stopping", headers=RETRY_AFTER)
        if service.served.now is None:
            raise Problem(NOT_READY, "no version is loaded yet", headers=RETRY_AFTER)
        writable.check()
        return Health(status="ready")

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """Show the metrics of all processes for Prometheus."""
        registry = CollectorRegistry()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(REGISTRY)
        registry.register(_Progress(service))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


class _Writable:
    """The last check of the store, good for a moment."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._checked_at = -WRITABLE_SECONDS

    def check(self) -> None:
        if time.monotonic() - self._checked_at > WRITABLE_SECONDS:
            self._service.feedback.check_writable()
            self._checked_at = time.monotonic()


class _Progress(Collector):
    """What is read from the store when it is asked for: how far learning is."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield what the newest version's row and the log's end say; nothing before version 0."""
        newest = self._service.checkpoints.latest()
        if newest is None:
            return
        log_seq = max(self._service.feedback.end(), newest.last_seq)
        yield GaugeMetricFamily("everlearn_model_version", "The newest committed version.", newest.version)
        yield GaugeMetricFamily("everlearn_log_seq", "Last sequence number of the feedback log.", log_seq)
        yield GaugeMetricFamily("everlearn_applied_seq", "Last sequence number that a version contains.", newest.last_seq)
        yield GaugeMetricFamily("everlearn_lag", "Feedback that waits for the learner.", log_seq - newest.last_seq)
        for name, value in newest.metrics["window"].items():
            if value is not None:
                yield GaugeMetricFamily(f"everlearn_window_{name}", f"Prequential {name} over the sliding window.", value)
        yield CounterMetricFamily("everlearn_drifts", "Drifts that were found in the log.", newest.metrics["drift"]["events"])
        weights = GaugeMetricFamily("everlearn_expert_weight", "Weight of an expert in the mix.", labels=["expert"])
        for name, weight in newest.metrics.get("experts", {}).items():
            weights.add_metric([name], weight)
        yield weights
