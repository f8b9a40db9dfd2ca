"""The README's first screen, executed: the same commands against the demo's service, and the answers that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.answers import check_commands
from tests.running import ROOT

README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^\$ (curl .*)\n(.*)$", README, re.M)


def test_the_curl_lines_give_the_answers_that_the_readme_shows(demo: tuple[str, str]) -> None:
    url, _ = demo
    assert len(EXAMPLES) == 2
    check_commands(EXAMPLES, url, already=httpx.get(f"{url}/model").json()["log_seq"] - 1797)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_a_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / Path(target)).exists()


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    texts = README + (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"`?make ([a-z-]+)", texts)) <= targets
