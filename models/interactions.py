"""The input kind of interactions: somebody, and what they are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired

import torch
from pydantic import AfterValidator, ConfigDict, Field, PositiveInt, Strict, StrictBool, StringConstraints
from typing_extensions import TypedDict

from models.errors import InstanceError
from models.inputs import FLOAT_LIMIT, Batch, JsonKind, Number, Text, code_of, texts_of
from models.names import seemly
from models.words import bucket_of

CONTEXT_BUCKETS = 1024
MOST_CONTEXT = 50
MOST_CANDIDATES = 10_000

Name = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200), AfterValidator(seemly)]
Value = Number | StrictBool | Annotated[str, Strict(), StringConstraints(max_length=200)]


class Interaction(TypedDict):
    """A user, and the item that is asked about, or the candidates; without either, the whole catalogue."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # it is pydantic's, and no field

    user: Name
    item: NotRequired[Name]
    candidates: NotRequired[Annotated[list[Name], Field(min_length=1, max_length=MOST_CANDIDATES)]]
    context: NotRequired[Annotated[dict[Name, Value], Field(max_length=MOST_CONTEXT)]]


class Interactions(JsonKind):
    """A user by name, an item or candidates by name, and what else is known of the moment: numbers, strings, booleans."""

    kind = "interaction"
    instance_type: Any = Interaction
    example: Mapping[str, Any] = {"user": "u7", "item": "i3", "context": {"device": "phone"}}

    def __init__(
        self, *, max_candidates: Annotated[PositiveInt, Field(description="An instance with more is refused.")] = 1000
    ) -> None:
        self.max_candidates = max_candidates
        self._texts = Text()

    def parse(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the interaction. Raises InstanceError for one that asks for two things at once."""
        if "item" in value and "candidates" in value:
            raise InstanceError("an interaction has an item or candidates, not both")
        candidates = value.get("candidates", [])
        if len(candidates) > self.max_candidates:
            raise InstanceError(f"there are {len(candidates)} candidates, the limit is {self.max_candidates}")
        if len(set(candidates)) < len(candidates):
            raise InstanceError("a candidate is named twice")
        return dict(value)

    def prepare(self, instance: Mapping[str, Any]) -> tuple[int, list[tuple[int, float]], bytes]:
        """Return the user's code, the context's buckets with their weights, and the names that are asked for as JSON."""
        asked = [instance["item"]] if "item" in instance else instance.get("candidates", [])
        context = [_weighted(name, value) for name, value in sorted(instance.get("context", {}).items())]
        return code_of("", instance["user"]), context, json.dumps(asked).encode()

    def collate(self, prepared: Sequence[Any]) -> Batch:
        """Return {"user": int64 [batch], "context": int64 [batch, most], "weights": float32}, and the names as texts."""
        users, contexts, asked = zip(*prepared, strict=True)
        most = max(map(len, contexts))
        padded = [[*context, *[(0, 0.0)] * (most - len(context))] for context in contexts]
        rows = torch.tensor(padded, dtype=torch.float64).reshape(len(padded), most, 2)
        return {
            "user": torch.tensor(users, dtype=torch.int64),
            "context": rows[:, :, 0].long(),
            "weights": rows[:, :, 1].float(),
            **self._texts.collate(asked),
        }


def asked_of(batch: Batch) -> list[list[str]]:
    """Return the names that each instance asks for; none asks for the whole catalogue."""
    return [json.loads(text) for text in texts_of(batch)]


def _weighted(name: str, value: float | bool | str) -> tuple[int, float]:
    """Return the bucket and the weight of one thing that is known: what it is, or how much (signed and damped)."""
    if isinstance(value, bool | str):
        return bucket_of(f"{name}={value}", CONTEXT_BUCKETS), 1.0
    size = min(abs(value), FLOAT_LIMIT)
    return bucket_of(name, CONTEXT_BUCKETS), math.copysign(math.log1p(size), value)
