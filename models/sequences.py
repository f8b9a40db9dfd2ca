"""The input kind of sequences: what somebody did, event by event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, PositiveInt, Strict, StringConstraints

from models.inputs import Batch, JsonKind, code_of
from models.names import seemly
from models.parts import Parts, event_parts

MOST_EVENTS = 10_000  # of an instance, whatever is looked at of it

Event = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200), AfterValidator(seemly)]


class Events(JsonKind):
    """A list of events by name, oldest first; the latest `length` of them are looked at."""

    kind = "sequence"
    instance_type: Any = Annotated[list[Event], Field(max_length=MOST_EVENTS)]
    example = ("home", "search", "view:shoes")

    def __init__(
        self, *, length: Annotated[PositiveInt, Field(description="Events that are looked at: the latest.")] = 32
    ) -> None:
        self.length = length

    def prepare(self, instance: Sequence[str]) -> list[int]:
        """Return the codes of the latest events."""
        return [code_of("", event) for event in instance[-self.length :]]

    def collate(self, prepared: Sequence[list[int]]) -> Batch:
        """Return {"events": int64 [batch, longest], oldest first, -1 behind the last, "count": int64 [batch]}."""
        longest = max(map(len, prepared))
        padded = [codes + [-1] * (longest - len(codes)) for codes in prepared]
        return {
            "events": torch.tensor(padded, dtype=torch.int64).reshape(len(prepared), longest),
            "count": torch.tensor(list(map(len, prepared)), dtype=torch.int64),
        }

    def parts(self, instance: Sequence[str], means: Sequence[float] | None) -> Parts:
        """Each event that is looked at is a part."""
        return event_parts(instance[-self.length :], self.prepare)
