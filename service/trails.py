"""Where an error came from, without what it says: its message may quote what a client sent."""

from __future__ import annotations

import logging
import traceback
from pathlib import PurePath
from typing import Any

FRAMES = 6  # innermost ones


def trail(exc: BaseException) -> str:
    """Return an error's type and the places that it passed, innermost first, in one line."""
    frames = traceback.extract_tb(exc.__traceback__)[-FRAMES:]
    places = [f"{frame.name} ({PurePath(frame.filename).name}:{frame.lineno})" for frame in reversed(frames)]
    cause = f"; caused by {trail(exc.__cause__)}" if exc.__cause__ is not None else ""
    return f"{type(exc).__name__} in {' < '.join(places)}{cause}"


def report(log: logging.Logger, level: int, event: str, exc: BaseException, **facts: Any) -> None:
    """Log an error without what it says, and in full for those who debug."""
    log.log(level, "%s: %s", event, trail(exc), extra=facts)
    log.debug(event, extra=facts, exc_info=exc)
