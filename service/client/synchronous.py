"""The client for code that waits."""

from __future__ import annotations

import time
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


class Client:
    """A client of one service; to be closed, or used in a `with`. Threads may share it.

    Every method raises a `ClientError`: a `ProblemError` where the service refused, `Unreachable` where no answer came.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        token: str | Callable[[], str] | None = None,
        patience: float = PATIENCE,
        limits: Limits | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`key` is an API key; `token` a bearer token, or what gives the one of the moment.

        `patience` is for how many seconds a call is tried again. `limits` are asked for unless they are given.
        """
        self._calls = Calls(patience, limits)
        self._http = httpx.Client(transport=transport, **options(url, Credential(key, token)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, instances: Iterable[Any], *, top_k: int | None = None) -> list[Prediction]:
        """Return the answers to instances, as JSON has them; bytes are a picture, an array of NumPy is an instance a row.

        Raises NoClasses before the first label.
        """
        return self._run(self._calls.predict(instances, top_k))

    def feedback(self, items: Iterable[Feedback], *, wait: float = 0.0) -> Taken:
        """Send labels, and wait up to so many seconds (30 at most) until they are served.

        Where it raises, some of them may have been taken: send the same items again, and nothing is learned twice.
        """
        return self._run(self._calls.feedback(items, wait))

    def wait_for(self, *, seq: int | None = None, version: int | None = None, seconds: float = 60.0) -> int:
        """Wait until a version is served, or one that decided on a feedback item; return what is served. Raises NotInTime."""
        return self._run(self._calls.wait_for(seq, version, seconds))

    def model(self) -> Model:
        """Return what is served, and how far it is behind the log."""
        return self._run(self._calls.model())

    def status(self, seq: int) -> Status:
        """Return what became of a feedback item. Raises NotFound."""
        return self._run(self._calls.status(seq))

    def describe(self, name: str, *descriptions: str, wait: float = 10.0) -> ClassAdded:
        """Add a class before its first label, and wait up to so many seconds (30 at most) until it is served."""
        return self._run(self._calls.describe(name, descriptions, wait))

    def limits(self) -> Limits:
        """Return what one request may hold; calls with more are cut by it."""
        return self._run(self._calls.limits())

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document of the service."""
        return self._run(self._calls.document())

    def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # typeshed has Any for it
            outcome = self._take(step)

    def _take(self, step: Call | Pause) -> Outcome:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.request(**request_of(step))
        except httpx.RequestError as exc:
            return exc
