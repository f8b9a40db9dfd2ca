"""HTTP/1.1 as uvicorn speaks it, with a bound on the head of a request: neither uvicorn nor httptools has one."""

from __future__ import annotations

import uuid

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import metrics

HEAD_BYTES = 512 * 1024
"""Of request line and headers; what comes in one read with the end of the request before is counted too."""

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nx-request-id: %s\r\n"
    b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
)
PROBLEM = (
    b'{"type":"urn:everlearn:problem:head-too-large","title":"The head of the request is larger than the limit.",'
    b'"status":431,"detail":"the request line and headers may have %d bytes"}'
)


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
        metrics.requests.labels("any", "unmatched", 431).inc()
        if self.cycle is None or self.cycle.response_complete:  # else the client would take it for the answer before
            problem = PROBLEM % HEAD_BYTES
            self.transport.write(TOO_LARGE % (uuid.uuid4().hex.encode(), len(problem), problem))
        self.transport.close()
