"""How a client is opened: where the service is, and who calls."""

from __future__ import annotations

from collections.abc import Callable, Generator
from importlib.metadata import version
from typing import Any

import httpx

from service.client.exchange import Call

PATIENCE = 60.0  # seconds for which a call is tried again


class Credential(httpx.Auth):
    """Puts a key or a token on every request; a token that changes is asked for each time."""

    def __init__(self, key: str | None, token: str | Callable[[], str] | None) -> None:
        """Raises ValueError for both."""
        if key is not None and token is not None:
            raise ValueError("give a key or a token, not both")
        self._key = key
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign one request."""
        if self._key is not None:
            request.headers["X-API-Key"] = self._key
        elif self._token is not None:
            token = self._token if isinstance(self._token, str) else self._token()
            request.headers["Authorization"] = f"Bearer {token}"
        yield request


def options(url: str, credential: Credential) -> dict[str, Any]:
    """Return what both kinds of client of httpx are made with."""
    return {"base_url": url, "auth": credential, "headers": {"User-Agent": f"everlearn/{version('everlearn')}"}}


def request_of(call: Call) -> dict[str, Any]:
    """Return a call as both kinds of client of httpx take it."""
    return {
        "method": call.method,
        "url": call.path,
        "content": call.content or None,
        "headers": call.headers,
        "timeout": call.seconds,
    }
