"""Commands and answers as documentation shows them: run again, and compared but for what differs from run to run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from typing import Any

SHOWN_URL = "http://127.0.0.1:8000"


def check_commands(examples: list[tuple[str, str]], url: str, already: int = 0) -> None:
    """Run each curl line against a service and compare the answer; `already` labels were there before the first one."""
    ids: dict[str, str] = {}
    for command, shown in examples:
        for old, new in {SHOWN_URL: url, **ids}.items():
            command = command.replace(old, new)  # noqa: PLW2901
        given = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
        assert shape(json.loads(given), already) == shape(json.loads(shown), 0), command
        ids |= zip(re.findall(r'"id":"(\w+)"', shown), re.findall(r'"id":"(\w+)"', given), strict=True)


def shape(value: Any, already: int) -> Any:
    """Return an answer less what differs from run to run: ids, a number's last digits, labels that were there `already`."""
    if isinstance(value, dict):
        return {name: "..." if name == "id" else shape(part, already) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part, already) for part in value]
    if isinstance(value, int):
        return value - already
    if isinstance(value, float):
        return float(f"{value:.2g}") if abs(value) > 0.01 else 0.0
    return value
