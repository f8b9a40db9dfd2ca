"""Where log lines go, and what they look like: one line an event, for people or for machines.

Whatever logs with the standard library is written this way, uvicorn and warnings too. A message of ours begins with the event's
name ("learner.committed: ..."), and its facts come with `extra`; of others, the logger's name is the event.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["console", "json"]

NAMED = re.compile(r"([a-z]+\.[a-z_]+)(?:: |$)")
KNOWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
"""What a record has without `extra`, and uvicorn's copy of a message with colours."""


def configure_logging(role: str, level: str, format_: LogFormat) -> None:
    """Log to standard error, each line with the process's role."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role) if format_ == "json" else ConsoleFormatter(role))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(True)


class ConsoleFormatter(logging.Formatter):
    """Words first, then the facts: `11:02:03 INFO learner[7] learner.committed version=17 seq=1798`."""

    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {role}[{os.getpid()}] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Return the line, before what was raised."""
        return " ".join([super().formatMessage(record), *(f"{name}={value}" for name, value in _facts(record).items())])


class JsonFormatter(logging.Formatter):
    """An object a line: `time`, `level`, `role`, `pid`, `event`, `message` where there are words, and the event's facts."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._process = {"role": role, "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = record.getMessage()
        named = NAMED.match(message)
        event, words = (named[1], message[named.end() :]) if named else (record.name, message)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **self._process,
            "event": event,
        }
        if words:
            line["message"] = words
        line.update(_facts(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in KNOWN and value is not None}
