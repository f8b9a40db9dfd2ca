"""The README's first screen, executed: the same commands against the demo's service, and the answers that it shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running import ROOT

README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^\$ (curl .*)\n(.*)$", README, re.M)


def shape(value: Any, already: int) -> Any:
    """Return an answer less what differs from run to run: ids, a probability's digits, labels that were there `already`."""
    if isinstance(value, dict):
        return {name: "..." if name == "id" else shape(part, already) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part, already) for part in value]
    if isinstance(value, int):
        return value - already
    return round(value, 2) if isinstance(value, float) else value


def test_the_curl_lines_give_the_answers_that_the_readme_shows(demo: tuple[str, str]) -> None:
    url, _ = demo
    ids: dict[str, str] = {}
    already = httpx.get(f"{url}/model").json()["log_seq"] - 1797
    assert len(EXAMPLES) == 2
    for command, answer in EXAMPLES:
        for shown, real in {"http://127.0.0.1:8000": url, **ids}.items():
            command = command.replace(shown, real)  # noqa: PLW2901
        given = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
        assert shape(json.loads(given), already) == shape(json.loads(answer), already=0)
        ids |= zip(re.findall(r'"id":"(\w+)"', answer), re.findall(r'"id":"(\w+)"', given), strict=True)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_a_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / Path(target)).exists()


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    texts = README + (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"`?make ([a-z-]+)", texts)) <= targets
