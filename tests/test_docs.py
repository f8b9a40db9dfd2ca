"""The Python in docs/, executed, and the curl lines of its pages, on a fresh service of the page's configuration."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from service.templates import render
from tests.answers import check_commands
from tests.running import ROOT, RunningService, everlearn

EXAMPLES = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S))
]


PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if "```console" in path.read_text()]


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs_as_it_stands(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)
    assert capsys.readouterr().out.strip()


def test_the_notebook_example_learns() -> None:
    names: dict[str, Any] = {}
    (example,) = (each.values[0] for each in EXAMPLES if each.id == "learning.md-0")
    exec(example, names)  # type: ignore[arg-type]
    assert names["state"].metrics()["accuracy"] > 0.85


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_curl_lines_of_a_page_give_the_answers_that_it_shows(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    config = re.search(r"^```toml\n(.*?)^```", text, re.M | re.S)
    template = re.search(r"everlearn init --template (\w+)", text)
    assert config or template
    examples = re.findall(r"^\$ (curl .*)\n(.*)$", text, re.M)
    assert len(examples) == text.count("$ curl")
    service = RunningService(tmp_path, config[1] if config else render(template[1]))  # type: ignore[index]
    keys = made_keys(text, service)
    with service:
        check_commands([(replaced(command, keys), shown) for command, shown in examples], service.url)


def made_keys(text: str, service: RunningService) -> dict[str, str]:
    """Run the lines that make keys; return the key that was made for each that the page shows."""
    made = {}
    for command, shown in re.findall(r"^\$ everlearn (keys add .*)\n(.*)$", text, re.M):
        done = everlearn(*shlex.split(command), "--config", str(service.config), "--data", str(service.data))
        assert done.returncode == 0, done.stderr
        made[shown] = done.stdout.strip()
    return made


def replaced(command: str, keys: dict[str, str]) -> str:
    for shown, made in keys.items():
        command = command.replace(shown, made)
    return command
