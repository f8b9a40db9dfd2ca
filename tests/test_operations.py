"""docs/operations.md, executed: its commands in their order on the directory of a service, and the output that it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from service.templates import render
from tests.running import ROOT, RunningService, everlearn, learn

PAGE = (ROOT / "docs" / "operations.md").read_text()
BLOCKS = [block.splitlines() for block in re.findall(r"^```\n(\$ .*?)^```", PAGE, re.M | re.S)]


def shape(line: str) -> str:
    """Return a line less what another processor may make of the same feedback."""
    return re.sub(r"[0-9a-f]{64}", "<sha256>", line)


def shown() -> list[tuple[str, list[str]]]:
    """Return each command of the page with the lines below it."""
    commands: list[tuple[str, list[str]]] = []
    for line in (line for block in BLOCKS for line in block):
        if line.startswith("$ everlearn "):
            commands.append((line.removeprefix("$ everlearn "), []))
        else:
            commands[-1][1].append(line)
    return commands


def test_the_commands_say_what_the_page_shows(tmp_path: Path) -> None:
    with RunningService(tmp_path, render("record")) as service, service.client() as client:
        for age in range(40):
            record = {"age": float(age), "city": ["Bern", "Oslo"][age % 2], "member": age % 3 == 0}
            learn(client, [(record, "old" if age > 20 else "young")])
        for command, output in shown():
            done = everlearn(*command.split(), cwd=tmp_path, EVERLEARN_STORE_DATA=str(service.data), PYTHONPATH=str(ROOT))
            assert done.returncode == 0, done.stderr
            assert list(map(shape, done.stderr.strip().splitlines())) == list(map(shape, output)), command
    (example,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.M | re.S)
    run = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"(old|young) [01]\.\d+\n", run.stdout)


def test_every_command_that_keeps_something_is_on_the_page() -> None:
    for command in ("backup", "restore", "replay", "export", "rollback", "forget", "release", "whatif", "versions"):
        assert f"everlearn {command}" in PAGE
