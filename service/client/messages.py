"""What goes to the service and comes back, as plain dataclasses."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self


def _new_key() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A label for an earlier prediction, by its id, or for an instance that is sent along.

    The key is made with it: however often this very object is sent, it is learned from once.
    """

    label: Any
    instance: Any = None
    prediction_id: str | None = None
    weight: float = 1.0
    key: str = field(default_factory=_new_key)

    def as_json(self) -> bytes:
        """Return it as the service takes it. Raises ValueError for what JSON does not have, such as NaN."""
        given = {"instance": self.instance, "prediction_id": self.prediction_id}
        source = {name: value for name, value in given.items() if value is not None}  # who gives both is told by the service
        weight = {} if self.weight == 1 else {"weight": self.weight}
        return as_json({**source, "label": self.label, **weight, "key": self.key})


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one version says of an instance."""

    id: str
    """What a label can name instead of the instance."""
    model_version: int
    answer: Mapping[str, Any]
    """What the model's head answers: `label` and `scores`, `value`, `text`, ..., as /predict gives it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Feedback that is on stable storage."""

    seqs: Sequence[int]
    """The place of each item in the log, in the order in which they were sent."""
    model_version: int | None
    """A version that is served and contains all of it; None where it was not waited for, or in vain."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of which later versions of the service may say more: what is not known here is left out."""

    @classmethod
    def named(cls) -> Sequence[str]:
        """Return what an answer has to say."""
        return [each.name for each in fields(cls) if each.default is MISSING]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Make it of the JSON of an answer."""
        return cls(**{each.name: body[each.name] for each in fields(cls) if each.name in body})


@dataclass(frozen=True, slots=True)
class Status(Answered):
    """What became of a feedback item: "pending", "applied", "holdout", "quarantined", "skipped" or "forgotten"."""

    seq: int
    status: str
    model_version: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ClassAdded(Answered):
    """A class as it stands in the log; with a version once one that is served knows it."""

    name: str
    descriptions: Sequence[str]
    seq: int
    model_version: int | None = None


@dataclass(frozen=True, slots=True)
class Model(Answered):
    """The model that is served, and how far it is behind the log."""

    model_version: int
    labels: Sequence[str]
    log_seq: int
    applied_seq: int
    lag: int
    input: str
    task: str
    device: str
    metrics: Mapping[str, Any]
    by_class: Mapping[str, Any] | None
    started_at: str


def as_json(value: Any) -> bytes:
    """Return JSON. Arrays become lists, and bytes, which are a picture, {"b64": ...}. Raises ValueError and TypeError."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    plain = value.tolist() if hasattr(value, "tolist") else value  # of numpy or torch, neither of which need be here
    if type(plain) is not type(value):  # a long double of numpy stays one
        return plain
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")
