"""The transport that uvicorn writes its answers to."""

from __future__ import annotations

import asyncio
from typing import Any

HEADS = tuple(b"HTTP/1.1 %d" % hundreds for hundreds in range(2, 6))
"""What the head of an answer begins with; after 100 Continue another one follows."""


class JoiningTransport:
    """Keeps the head of an answer until its body comes: one write takes the kernel, and the client, half of what two do.

    uvicorn writes them one after the other, and uvloop sends each at once. ASGI allows a server to let a head wait for a body.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        """Do all else as the transport itself."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write a body, and the head that waits for it; let a head wait."""
        if not self._head and data[: len(HEADS[0])] in HEADS:
            self._head = data
            return
        self._transport.write(self._head + data)
        self._head = b""

    def flush(self) -> None:
        """Write a head that no body follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close the connection once everything is written."""
        self.flush()
        self._transport.close()
