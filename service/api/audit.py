"""What came of an admin act goes on record before it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import AuditLog
from service.api.access import AUDITED
from service.store import StoreUnavailable

log = logging.getLogger(__name__)


class Audited:
    """Around everything that may answer: the last word on an act is what its client is told."""

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and AUDITED in scope:
                await asyncio.to_thread(self._record, scope[AUDITED], message["status"])
            await send(message)

        await self._app(scope, receive, send_on)

    def _record(self, record: Mapping[str, Any], status: int) -> None:
        try:
            self._audit.append({**record, "event": "answered", "status": status})
        except StoreUnavailable as exc:  # that it was asked for is on record; it is done, and must be answered
            log.error("audit.failed: %s", exc, extra={"request_id": record["request_id"], "status": status})
