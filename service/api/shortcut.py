"""The routes that are asked thousands of times a second, past what FastAPI does for any route and these do not need."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.routing import Guarded

PATHS = ("/predict", "/feedback")


class Shortcut:
    """Finds a few routes by their path alone, and leads the way to them past routers, exit stacks and middleware.

    What these would do for them, the edge does: it answers what is raised. They are no admin acts, so nothing is audited.
    """

    def __init__(self, app: FastAPI, edge: Callable[[ASGIApp], ASGIApp]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for route in app.routes
            if isinstance(route, Guarded) and route.path in PATHS and route.whole
            for method in route.methods or ()
        }
        self._edge = edge(_routed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or what else a server says."""
        route = self._routes.get((scope.get("method", ""), scope.get("path", "")))
        if route is None or scope["root_path"]:
            await self._app(scope, receive, send)
            return
        scope.update(app=self._app, route=route, path_params={})
        await self._edge(scope, receive, send)


async def _routed(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await scope["route"].app(scope, receive, send)
    except problems.EXPECTED as exc:
        await problems.answer_to(exc, scope["path"])(scope, receive, send)
