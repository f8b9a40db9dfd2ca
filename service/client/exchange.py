"""One call, as steps that somebody else carries out: no socket and no sleep in here, so that both clients share all of it.

A generator yields a `Call`, and is sent the response or the error that came of it; or a `Pause`, after which it goes on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from service.client.errors import ClientError, NotInTime, ProblemError, Unreachable, problem_of

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds of back-off, between which it doubles
ANSWER_SECONDS = 20.0  # for an answer, beyond what the service was asked to wait

AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same call may well succeed; any other does so only where the service says when (Retry-After)."""
HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors of what is to be sent: a URL or a header that can't be."""
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Errors before anything was sent."""

STRANGER = ": is there an everlearn at this URL?"


@dataclass(frozen=True, slots=True)
class Call:
    """A request."""

    method: str
    path: str
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = ANSWER_SECONDS
    repeatable: bool = True
    """Whether it does no harm to send it again, whatever came of it the first time."""
    named: Collection[str] = ()
    """What its answer has to say, by name."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do for some seconds."""

    seconds: float


Outcome = httpx.Response | httpx.RequestError | None
Steps = Generator[Call | Pause, Outcome, T]


def carried_out(call: Call, patience: float) -> Steps[Any]:
    """Send a call until it succeeds, within so many seconds: a pause that would end later is not begun. Return the JSON.

    Raises ProblemError where it is refused, or the last refusal, Unreachable, and ClientError for another service's answer.
    """
    began, failures = time.monotonic(), 0
    while True:
        outcome = yield call
        if isinstance(outcome, httpx.Response) and outcome.status_code < 400:
            return _content(call, outcome)
        failures += 1
        error = _error_of(call, outcome)
        pause = _pause(failures, error)
        if not _worth_another(call, error) or pause > began + patience - time.monotonic():
            raise error
        yield Pause(pause)


def pauses(seconds: float) -> Iterator[Pause]:
    """Yield what to do between two looks, each longer than the one before. Raises NotInTime."""
    began, pause = time.monotonic(), 0.01
    while time.monotonic() - began < seconds:
        yield Pause(pause)
        pause = min(2 * pause, 0.5)
    raise NotInTime(f"it has not come within {seconds:g} s")


def _content(call: Call, response: httpx.Response) -> Any:
    try:
        body = response.json()
    except ValueError as exc:
        raise ClientError(f"{call.method} {call.path}: the answer is no JSON{STRANGER}") from exc
    if missing := [name for name in call.named if not isinstance(body, dict) or name not in body]:
        raise ClientError(f"{call.method} {call.path}: the answer does not say {missing[0]}{STRANGER}")
    return body


def _error_of(call: Call, outcome: Outcome) -> ProblemError | Unreachable:
    """Return what came of a call that did not succeed."""
    if isinstance(outcome, httpx.Response):
        return problem_of(outcome)
    error = Unreachable(f"{call.method} {call.path}: {outcome or type(outcome).__name__}")
    error.__cause__ = outcome
    return error


def _worth_another(call: Call, error: ProblemError | Unreachable) -> bool:
    """Return whether to send it again is safe, and may help."""
    if isinstance(error, Unreachable):
        if isinstance(error.__cause__, HOPELESS):
            return False
        return call.repeatable or isinstance(error.__cause__, UNSENT)
    if error.status == 429:  # which is said before anything is done
        return True
    return call.repeatable and (error.status in AGAIN or error.retry_after is not None)


def _pause(failures: int, error: ProblemError | Unreachable) -> float:
    """Return the seconds to wait: what the service asked for, and on top anything up to the back-off, so that clients part."""
    asked = error.retry_after or 0.0 if isinstance(error, ProblemError) else 0.0
    most = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
    return asked + random.uniform(0, most)  # noqa: S311  # no secret hangs on it
