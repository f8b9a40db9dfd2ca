"""Whether a process can do its work."""

from __future__ import annotations

import logging
import time

from service.api.problems import NOT_READY, RETRY_AFTER, Problem
from service.api.service import Service
from service.store import StoreError

log = logging.getLogger(__name__)

UNREADY = {
    "starting": "no version is loaded yet",
    "stopping": "the service is stopping",
    "store-unavailable": "the store can't be written; the log of the service says why",
}
"""Why a service may be not ready, for machines and for people."""

WRITABLE_SECONDS = 1.0  # for which a check of the store holds: probes come often, and each check is an fsync


class Readiness:
    """What /readyz says, and whoever else is asked the same. It blocks: the store is tried."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._checked_at = -WRITABLE_SECONDS

    def check(self) -> None:
        """Raise Problem 503 with all the reasons, unless a model is loaded and the store can be written."""
        service = self._service
        missing = [] if service.served.now else ["starting"]
        if service.leaving.is_set() or service.served.draining:
            missing.append("stopping")
        if not self._writable():
            missing.append("store-unavailable")
        if missing:
            detail = "; ".join(UNREADY[reason] for reason in missing)
            raise Problem(NOT_READY, detail, reasons=missing, headers=RETRY_AFTER)

    def _writable(self) -> bool:
        """Return whether the store can be written; a check that succeeded is good for a moment."""
        if time.monotonic() - self._checked_at > WRITABLE_SECONDS:
            try:
                self._service.feedback.check_writable()
            except StoreError as exc:
                log.error("api.store_failed: %s", exc)
                return False
            self._checked_at = time.monotonic()
        return True
