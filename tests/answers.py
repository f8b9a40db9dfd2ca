"""Commands and answers as documentation shows them: run again, and compared but for what differs from run to run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from typing import Any

import pytest

SHOWN_URL = "http://127.0.0.1:8000"

LIKELY = 0.02
"""Below this a score is chance: another processor rounds otherwise, and over a thousand updates that picks another label."""


def check_commands(examples: list[tuple[str, str]], url: str, already: int = 0) -> None:
    """Run each curl line against a service and compare the answer; `already` labels were there before the first one."""
    ids: dict[str, str] = {}
    for command, shown in examples:
        for old, new in {SHOWN_URL: url, **ids}.items():
            command = command.replace(old, new)  # noqa: PLW2901
        given = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
        expected = shape(json.loads(shown), 0)
        assert shape(json.loads(given), already) == expected, f"{command}\ngave  {given}\nshown {shown}"
        ids |= zip(re.findall(r'"id":"(\w+)"', shown), re.findall(r'"id":"(\w+)"', given), strict=True)


def shape(value: Any, already: int) -> Any:
    """Return an answer less what differs from run to run: ids, unlikely labels, last digits, labels `already` there."""
    if isinstance(value, dict):
        return {name: _part(name, part, already) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part, already) for part in value]
    if isinstance(value, int):
        return value - already
    if isinstance(value, float):
        return pytest.approx(value, rel=0.05, abs=LIKELY)
    return value


def _part(name: str, part: Any, already: int) -> Any:
    if name == "id":
        return "..."
    if name == "scores" and isinstance(part, dict):
        part = {label: score for label, score in part.items() if score >= LIKELY}
    return shape(part, already)
