"""What a call may raise: one base, and a class for each kind of problem that callers may want to tell from others."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

TYPE = "urn:everlearn:problem:"


class ClientError(Exception):
    """The call did not do what it was asked for."""


class Unreachable(ClientError):
    """No answer came, though it was asked for as often as there was patience for."""


class NotInTime(ClientError):
    """What was waited for has not come in time; it may still come."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of the request that is to blame, by its JSON Pointer."""

    pointer: str
    detail: str


class ProblemError(ClientError):
    """The service refused; subclasses say why, this class stands for every kind that has none."""

    kind: str = ""
    """The end of the problem's `type`, such as "no-classes"; empty where whoever answered speaks no problem+json."""

    def __init__(
        self,
        kind: str,
        status: int,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        reasons: Sequence[str] = (),
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        """`retry_after` is in seconds; `request_id` finds the call in the logs of the service."""
        super().__init__(detail)
        self.kind = kind
        self.status = status
        self.detail = detail
        self.faults = faults
        self.reasons = reasons
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.detail} ({self.status}{f' {self.kind}' if self.kind else ''})"


class NoClasses(ProblemError):
    """No class is known yet: send feedback first."""

    kind = "no-classes"


class Invalid(ProblemError):
    """A part of the request has a wrong shape, type or value; `faults` say which."""

    kind = "invalid"


class UnknownPrediction(ProblemError):
    """The prediction is unknown or has expired: send the instance with the label."""

    kind = "unknown-prediction"


class KeyReused(ProblemError):
    """The key came before, with different content."""

    kind = "key-reused"


class NotFound(ProblemError):
    """There is no such thing."""

    kind = "not-found"


class Unauthenticated(ProblemError):
    """The service does not know who calls."""

    kind = "unauthenticated"


class Forbidden(ProblemError):
    """The caller may not do this."""

    kind = "forbidden"


class TooLarge(ProblemError):
    """The body is larger than the limit."""

    kind = "too-large"


class Backlog(ProblemError):
    """Too much feedback waits for the learner."""

    kind = "backlog"


class Overloaded(ProblemError):
    """More is asked than can be answered in time."""

    kind = "overloaded"


KINDS: Mapping[str, type[ProblemError]] = {each.kind: each for each in ProblemError.__subclasses__()}


def problem_of(response: httpx.Response) -> ProblemError:
    """Return the error that a response with 4xx or 5xx is, be it the service's own or a gateway's."""
    details = _details(response)
    kind = str(details.get("type") or "").removeprefix(TYPE)
    return KINDS.get(kind, ProblemError)(
        kind,
        response.status_code,
        str(details.get("detail") or details.get("title") or response.reason_phrase or "no reason was given"),
        faults=[Fault(str(each["pointer"]), str(each["detail"])) for each in _list(details, "errors") if _is_fault(each)],
        reasons=[str(each) for each in _list(details, "reasons")],
        retry_after=retry_after_of(response),
        request_id=response.headers.get("x-request-id"),
    )


def retry_after_of(response: httpx.Response) -> float | None:
    """Return the seconds of Retry-After, which may also be a date; None where there is none, or none that makes sense."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return None
    return max(0.0, math.ceil(seconds))


def _details(response: httpx.Response) -> Mapping[str, Any]:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        details = response.json()
    except ValueError:  # cut off on its way
        return {}
    return details if isinstance(details, dict) else {}


def _list(details: Mapping[str, Any], name: str) -> list[Any]:
    """Return an extension of problem details as the service has it: somebody else's may be anything."""
    value = details.get(name)
    return value if isinstance(value, list) else []


def _is_fault(value: Any) -> bool:
    return isinstance(value, dict) and {"pointer", "detail"} <= value.keys()
