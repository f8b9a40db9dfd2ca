"""Many items as requests that the service takes: cut by its own limits, which its OpenAPI document names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

ENVELOPE = 200  # bytes around the items of a body


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold."""

    instances: int
    """Of /predict."""
    feedback: int
    """Items of /feedback."""
    body_bytes: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read them from the OpenAPI document of a service."""
        schemas = document["components"]["schemas"]
        return cls(
            instances=schemas["PredictRequest"]["properties"]["instances"]["maxItems"],
            feedback=schemas["FeedbackRequest"]["properties"]["feedback"]["maxItems"],
            body_bytes=document["info"]["x-max-body-bytes"],
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Items of one request."""

    start: int
    """How many items came before them."""
    items: Sequence[bytes]
    last: bool

    def body(self, name: str, more: bytes = b"") -> bytes:
        """Return the body that has the items under a name, and `more` behind them."""
        return b'{"%s":[%s]%s}' % (name.encode(), b",".join(self.items), more)


def cut(items: Iterable[bytes], most: int, body_bytes: int) -> Iterator[Batch]:
    """Yield batches of at most so many items and bytes. An item that is too large by itself goes alone, to be refused."""
    start, size, waiting = 0, ENVELOPE, list[bytes]()
    for item in items:
        if waiting and (len(waiting) == most or size + len(item) + 1 > body_bytes):
            yield Batch(start, waiting, last=False)
            start, size, waiting = start + len(waiting), ENVELOPE, []
        waiting.append(item)
        size += len(item) + 1
    if waiting:
        yield Batch(start, waiting, last=True)
