"""What is known of a caller once its key or token has been checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from models.names import unseemly

Scope = Literal["predict", "feedback", "admin"]
"""What a caller may do: ask the model, teach it, and change what it has learned. None of them includes another."""

SCOPES: tuple[Scope, ...] = get_args(Scope)

MOST_CHARACTERS = 200


class AccessError(Exception):
    """The keys or tokens can't be checked as the settings say, or the service would be open without that being said."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call. The source is the name under which the log records what it teaches; None for anybody."""

    source: str | None
    scopes: frozenset[Scope]


ANYBODY = Caller(None, frozenset(SCOPES))
"""Who calls a service that asks nobody for a key."""


class Verifier(Protocol):
    """Tells from a credential who calls."""

    def caller(self, credential: str) -> Caller | None:
        """Return who has this credential, None where nobody has."""


def is_source(name: str) -> bool:
    """Return whether a name can stand for a source, in the log and on a screen."""
    return 0 < len(name) <= MOST_CHARACTERS and unseemly(name) is None
