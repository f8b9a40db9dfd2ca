"""Traces, by OpenTelemetry: what belongs together of a prediction, its feedback, the update that learned it, and the swap.

A trace crosses processes as a W3C traceparent: that of a prediction stands in the journal, of feedback in the log, of an update
beside its version; who reads one there links to it. Without a provider (see `service.processes.telemetry`) spans are nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagate import extract

PREFIX = "everlearn."  # of attributes that no convention names

_tracer = trace.get_tracer("everlearn")


@contextmanager
def span(name: str, *, follows: str | None = None, within: Context | None = None) -> Iterator[None]:
    """Do something as a part of the trace at hand, of the one that it `follows`, or of the context that it is `within`."""
    context = _context_of(follows) if follows else within
    # What was raised may say what a client sent: its type is enough.
    with _tracer.start_as_current_span(name, context, record_exception=False, set_status_on_exception=False) as current:
        try:
            yield
        except Exception as exc:
            current.set_attribute("error.type", type(exc).__qualname__)
            current.set_status(trace.StatusCode.ERROR)
            raise


def here() -> str | None:
    """Return the traceparent of the span at hand, None where it is not recorded."""
    found = trace.get_current_span().get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-01" if found.trace_flags.sampled else None


def recording() -> bool:
    """Return whether the span at hand is kept: where not, what it would say need not be looked up."""
    return trace.get_current_span().is_recording()


def link(traces: Iterable[str | None]) -> None:
    """Say that the span at hand came of others; what can't be read is left out."""
    current = trace.get_current_span()
    for traceparent in dict.fromkeys(filter(None, traces)):
        linked = trace.get_current_span(_context_of(traceparent)).get_span_context()
        if linked.is_valid:
            current.add_link(linked)


def tell(**facts: Any) -> None:
    """Put facts on the span at hand, never what a client sent as text; None says nothing."""
    current = trace.get_current_span()
    if current.is_recording():
        current.set_attributes({PREFIX + name: value for name, value in facts.items() if value is not None})


def _context_of(traceparent: str) -> Context:
    return extract({"traceparent": traceparent}, Context())
