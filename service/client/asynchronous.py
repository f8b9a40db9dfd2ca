"""The client for code that awaits: the same calls as `Client`, described there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from service.client.batches import Limits
from service.client.calls import Calls
from service.client.exchange import Call, Outcome, Pause, Steps
from service.client.messages import ClassAdded, Feedback, Model, Prediction, Status, Taken
from service.client.opening import PATIENCE, Credential, options, request_of

T = TypeVar("T")


class AsyncClient:
    """A client of one service for asyncio; to be closed, or used in an `async with`."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        token: str | Callable[[], str] | None = None,
        patience: float = PATIENCE,
        limits: Limits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As `Client`."""
        self._calls = Calls(patience, limits)
        self._http = httpx.AsyncClient(transport=transport, **options(url, Credential(key, token)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(self, instances: Iterable[Any], *, top_k: int | None = None) -> list[Prediction]:
        """As `Client.predict`."""
        return await self._run(self._calls.predict(instances, top_k))

    async def feedback(self, items: Iterable[Feedback], *, wait: float = 0.0) -> Taken:
        """As `Client.feedback`."""
        return await self._run(self._calls.feedback(items, wait))

    async def wait_for(self, *, seq: int | None = None, version: int | None = None, seconds: float = 60.0) -> int:
        """As `Client.wait_for`."""
        return await self._run(self._calls.wait_for(seq, version, seconds))

    async def model(self) -> Model:
        """As `Client.model`."""
        return await self._run(self._calls.model())

    async def status(self, seq: int) -> Status:
        """As `Client.status`."""
        return await self._run(self._calls.status(seq))

    async def describe(self, name: str, *descriptions: str, wait: float = 10.0) -> ClassAdded:
        """As `Client.describe`."""
        return await self._run(self._calls.describe(name, descriptions, wait))

    async def limits(self) -> Limits:
        """As `Client.limits`."""
        return await self._run(self._calls.limits())

    async def document(self) -> dict[str, Any]:
        """As `Client.document`."""
        return await self._run(self._calls.document())

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # typeshed has Any for it
            outcome = await self._take(step)

    async def _take(self, step: Call | Pause) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(**request_of(step))
        except httpx.RequestError as exc:
            return exc
