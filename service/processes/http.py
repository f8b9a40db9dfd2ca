"""HTTP/1.1 as uvicorn speaks it, with a bound on the head of a request: neither uvicorn nor httptools has one."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 512 * 1024
"""Of request line and headers. Two reads of the event loop: what comes with the end of the body before is counted too."""

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
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
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            problem = PROBLEM % HEAD_BYTES
            self.transport.write(TOO_LARGE % (len(problem), problem))
            self.transport.close()

    def on_message_begin(self) -> None:
        """Start counting."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Count no longer."""
        self._in_head = False
        super().on_headers_complete()
