"""The class of all routes: who calls is known before a body is read, and nobody pays for what a route does not use."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.api.queries import each_once

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Guarded(APIRoute):
    """Asks of each request what every route asks of it; `app.state.access` knows who may call."""

    def get_route_handler(self) -> Handler:
        """Return what handles a request."""
        handle = self.endpoint if _reads_for_itself(self.endpoint) else super().get_route_handler()

        async def guard(request: Request) -> Response:
            await request.app.state.access(request)
            each_once(request)
            response: Response = await handle(request)
            return response

        return guard


def _reads_for_itself(endpoint: Callable[..., Any]) -> bool:
    """Return whether a route makes its response of the request alone: then FastAPI has nothing to read, check or write.

    It would take longer to find that out, for each request, than a small model takes to answer.
    """
    return iscoroutinefunction(endpoint) and get_type_hints(endpoint) == {"request": Request, "return": Response}
