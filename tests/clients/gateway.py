"""A bad gateway before a real service: it passes requests on, answers them itself, or loses the answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import httpx


class Refusal(NamedTuple):
    """An answer of the gateway's own."""

    status: int
    headers: Mapping[str, str] = {}  # read only
    body: bytes = b"<html>no healthy upstream</html>"


Act = Literal["pass", "lose"] | Refusal
"""What happens to a request; "lose" passes it on, and closes the connection without the answer."""


class BadGateway:
    """Does to each request what the plan says, one act after another, and passes on what comes after it."""

    def __init__(self, upstream: str, *plan: Act) -> None:
        self.seen: list[tuple[str, Mapping[str, str], bytes]] = []
        self._plan = list(plan)
        self._upstream = httpx.Client(base_url=upstream, timeout=60)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._upstream.close()

    @property
    def paths(self) -> Sequence[str]:
        """What was asked for, each time."""
        return [path for path, _, _ in self.seen]

    def _next(self) -> Act:
        with self._lock:
            return self._plan.pop(0) if self._plan else "pass"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                gateway.seen.append((f"{self.command} {self.path}", {k.lower(): v for k, v in self.headers.items()}, body))
                act = gateway._next()
                if isinstance(act, Refusal):
                    self._answer(act.status, act.headers, act.body)
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
                answer = gateway._upstream.request(self.command, self.path, content=body, headers=headers)
                if act == "lose":
                    self.close_connection = True
                    return
                decoded = {name: value for name, value in answer.headers.items() if name.lower() != "content-encoding"}
                self._answer(answer.status_code, decoded, answer.content)

            do_POST = do_GET  # noqa: N815  # the name that it is looked up by

            def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        return Handler
