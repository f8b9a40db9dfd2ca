"""A service that fails as a test wants it to: what a real one does too rarely."""

from __future__ import annotations

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Backend(ThreadingHTTPServer):
    """Is ready, and drops the connection of each request once it has read it, unless it shall answer after a while."""

    def __init__(self, answers_after: float | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers_after = answers_after
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that end."""


class _Handler(BaseHTTPRequestHandler):
    server: Backend
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        self.server.asked[self.path] += 1
        self.server.headers.append(dict(self.headers))
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.answers_after is None:
            self.close_connection = True
            return
        time.sleep(self.server.answers_after)
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")  # so that the end of the server is the end of its connections
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
