"""OpenTelemetry's providers, where they are asked for: spans of every process, and the HTTP metrics of the API, by OTLP.

Its own environment variables hold: endpoint, headers, sampler, `OTEL_TRACES_EXPORTER=none`, `OTEL_SDK_DISABLED=true` ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class TelemetryError(Exception):
    """Traces can't be exported as asked; the message says why."""


@contextmanager
def telemetry(name: str, endpoint: str) -> Iterator[None]:
    """Export while the context lasts, as the process of this name, where setting or environment says where to.

    Raises TelemetryError.
    """
    if endpoint:
        os.environ.setdefault(ENDPOINT, endpoint)
    with ExitStack() as stack:
        if signals := wanted():
            _export(signals, name, stack)
        yield


def wanted() -> set[str]:
    """Return what is exported. Raises TelemetryError."""
    return {signal for signal in ("TRACES", "METRICS") if _is_wanted(signal)}


def _is_wanted(signal: str) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER") or "otlp"
    if exporter not in ("otlp", "none"):
        raise TelemetryError(f'OTEL_{signal}_EXPORTER is {exporter!r}; "otlp" and "none" are known')
    return exporter == "otlp" and bool(os.environ.get(ENDPOINT) or os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))


def _export(signals: set[str], name: str, stack: ExitStack) -> None:
    try:
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise TelemetryError("to export traces needs `pip install 'everlearn[otel]'`") from exc
    ours = {"service.name": "everlearn", "service.version": version("everlearn"), "service.instance.id": name}
    resource = Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())
    if "TRACES" in signals:
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
        stack.callback(tracers.shutdown)
    if "METRICS" in signals:
        meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        stack.callback(meters.shutdown)
