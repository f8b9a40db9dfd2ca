"""The class of all routes: who calls is known before a body is read, and nobody pays for what a route does not use."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from service.api.queries import each_once

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Guarded(APIRoute):
    """Asks of each request what every route asks of it; `app.state.access` knows who may call.

    A route that makes its response of the request alone is called as it is: FastAPI has nothing to read, check, write or
    clean up for it, and would take longer to find that out than a small model takes to answer.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, endpoint, **more)
        self.whole = _reads_for_itself(endpoint)
        """Whether the endpoint makes its response of the request alone."""
        if self.whole:
            handle = _guarded(endpoint)

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                response = await handle(Request(scope, receive))
                await response(scope, receive, send)

            self.app = app

    def get_route_handler(self) -> Handler:
        """Return what handles a request."""
        return _guarded(super().get_route_handler())


def _guarded(handle: Handler) -> Handler:
    async def guard(request: Request) -> Response:
        await request.app.state.access(request)
        each_once(request)
        response: Response = await handle(request)
        return response

    return guard


def _reads_for_itself(endpoint: Callable[..., Any]) -> bool:
    return iscoroutinefunction(endpoint) and get_type_hints(endpoint) == {"request": Request, "return": Response}
