"""HTTP/1.1 as uvicorn speaks it, with a bound on the head of a request: neither uvicorn nor httptools has one."""

from __future__ import annotations

import uuid

from fastapi import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import metrics
from service.api.problems import HEAD_TOO_LARGE, Problem

HEAD_BYTES = 512 * 1024
"""Of request line and headers; what comes in one read with the end of the request before is counted too."""

PROBLEM = Problem(HEAD_TOO_LARGE, f"the request line and headers may have {HEAD_BYTES} bytes")


class BoundedHeadProtocol(HttpToolsProtocol):
    """Answers 431, and closes the connection, where the head of a request does not end in time."""

    _in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came, and stop where it is still the head."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """Start counting."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Count no longer."""
        self._in_head = False
        super().on_headers_complete()

    def _refuse(self) -> None:
        metrics.requests.labels("any", "unmatched", HEAD_TOO_LARGE.status).inc()
        if self.cycle is None or self.cycle.response_complete:  # else the client would take it for the answer before
            self.transport.write(_written(PROBLEM.response()))
        self.transport.close()


def _written(answer: Response) -> bytes:
    """Return an answer as it goes over the wire: there is no application that could send it."""
    headers = [*answer.raw_headers, (b"x-request-id", uuid.uuid4().hex.encode()), (b"connection", b"close")]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return STATUS_LINE[answer.status_code] + lines + b"\r\n" + bytes(answer.body)
