"""HTTP/1.1 as uvicorn speaks it, with bounds on the size and time of a request: neither uvicorn nor httptools has them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any, Literal

from fastapi import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import metrics
from service.api.problems import HEAD_TOO_LARGE, MALFORMED, TOO_SLOW, Problem
from service.processes.transport import JoiningTransport

log = logging.getLogger(__name__)

HEAD_BYTES = 512 * 1024
"""Of request line and headers; what comes in one read with the end of the request before is counted too."""

LARGE_HEAD = Problem(HEAD_TOO_LARGE, f"the request line and headers may have {HEAD_BYTES} bytes")
NO_HTTP = Problem(MALFORMED, "this is no HTTP request that can be read")

Phase = Literal["pause", "head", "body"]
"""What a connection is in the middle of receiving; a pause lies between two requests, while one is worked on too."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a request that is too large or too slow, and closes its connection: 431 or 408.

    The time for a head runs from the connection's start, or from the first byte after a pause, and the time for a body from the
    end of its head: whoever trickles gets no more of it. A request that comes in one read costs no timer.
    """

    def __init__(self, *arguments: Any, head_seconds: float, body_seconds: float, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._seconds = {"head": head_seconds, "body": body_seconds}
        self._phase: Phase = "pause"
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Wait for the first head."""
        self._answers = JoiningTransport(transport)
        super().connection_made(self._answers)  # type: ignore[arg-type]  # it has what uvicorn asks of a transport
        self._start_timer("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any longer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see what is still to come."""
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_timer()
            return
        if self._phase == "head":
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(LARGE_HEAD)
                return
        if self._timer is None and (self._phase != "pause" or self._is_idle()):
            self._start_timer("body" if self._phase == "body" else "head")

    def on_message_begin(self) -> None:
        """Start counting."""
        self._enter("head")
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Count no longer."""
        self._enter("body")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Be in no hurry until the next request."""
        self._enter("pause")
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let go of a head that has no body."""
        self._answers.flush()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as every other error."""
        self._refuse(NO_HTTP)

    def _enter(self, phase: Phase) -> None:
        if phase != "head" or self._phase != "pause":  # the time of a head may have begun with the connection
            self._stop_timer()
        self._phase = phase

    def _is_idle(self) -> bool:
        """Return whether nothing is worked on and uvicorn's own timer is off: blank lines before a request stop it."""
        return (self.cycle is None or self.cycle.response_complete) and self.timeout_keep_alive_task is None

    def _start_timer(self, phase: Literal["head", "body"]) -> None:
        self._timer = self.loop.call_later(self._seconds[phase], self._on_late, phase)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_late(self, phase: Literal["head", "body"]) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is us who let the client wait
            self._start_timer(phase)
            return
        self._refuse(Problem(TOO_SLOW, f"the {phase} of a request may take {self._seconds[phase]:g} s"))

    def _refuse(self, problem: Problem) -> None:
        self._stop_timer()
        metrics.requests.labels("any", "unmatched", problem.kind.status).inc()
        log.info("http.refused: %s", problem.kind.name, extra={"status": problem.kind.status})
        # Beside an answer that is being made, or under way, the client would take it for that one.
        if self.cycle is None or self.cycle.response_complete or (self._phase == "body" and not self.cycle.response_started):
            self.transport.write(_written(problem.response()))
        self.transport.close()


def _written(answer: Response) -> bytes:
    """Return an answer as it goes over the wire: there is no application that could send it."""
    headers = [*answer.raw_headers, (b"x-request-id", uuid.uuid4().hex.encode()), (b"connection", b"close")]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return STATUS_LINE[answer.status_code] + lines + b"\r\n" + bytes(answer.body)
