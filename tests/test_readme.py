"""What the README leads to, and its commands, run as it shows them; those of its first screen are executed in test_demo.py."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from service.cli import app
from tests.answers import SHOWN_URL
from tests.running import PICTURES, ROOT, RunningService, everlearn
from tests.test_demo import shown as demo_shown

README = (ROOT / "README.md").read_text()
LINES = [
    line.split(" #")[0].strip() for block in re.findall(r"^```\n(.*?)^```", README, re.M | re.S) for line in block.splitlines()
]
DEMOS = [line.removeprefix("everlearn demo ") for line in LINES if line.startswith("everlearn demo ")]
COMMANDS = [line for line in LINES if re.match(r"everlearn (?!demo)|curl ", line)]
NAMED = sorted(set(re.findall(r"`(everlearn [a-z][^`]*)`", README)))


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_a_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / Path(target)).exists()


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    texts = README + (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"`?make ([a-z-]+)", texts)) <= targets


@pytest.mark.parametrize("command", NAMED)
def test_a_command_that_is_named_exists_with_its_options(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    done = CliRunner().invoke(app, [name, *arguments[: name == "keys"], "--help"], terminal_width=200)
    assert done.exit_code == 0, done.output
    assert set(re.findall(r"--[a-z-]+", command)) <= set(re.findall(r"--[a-z-]+", done.stdout))


def test_the_commands_work_one_after_the_other(tmp_path: Path) -> None:
    """On files that a user might have: a template's service is made, served, taught and asked."""
    rng = np.random.default_rng(0)
    rows = [f"{age},{city},true,{'yes' if age > 40 else 'no'}" for age in rng.integers(20, 60, 40) for city in ("Bern", "Oslo")]
    (tmp_path / "buyers.csv").write_text("\n".join(["age,city,member,buys", *rows]) + "\n")
    sizes = rng.integers(20, 200, 60)
    (tmp_path / "stream.csv").write_text("\n".join(["size,rooms,price", *(f"{n},{n // 30},{5.5 * n}" for n in sizes)]) + "\n")
    labelled = tmp_path / "pictures" / "labelled" / "cat"
    for folder in (tmp_path / "photos", labelled):
        folder.mkdir(parents=True)
    for path in (tmp_path / "cat.jpg", tmp_path / "photos" / "1.png", tmp_path / "photos" / "2.png", labelled / "1.png"):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    run = []

    def shown(start: str, url: str = "") -> str:
        """Run the command that begins so; return what it prints."""
        (command,) = (each for each in COMMANDS if each.startswith(start))
        run.append(command)
        given = shlex.split(command.replace(SHOWN_URL, url))
        if given[0] == "everlearn":
            given[:1] = [sys.executable, "-m", "service.cli"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "EVERLEARN_URL": url,
            "EVERLEARN_STORE_DATA": str(tmp_path / "data"),
            "EVERLEARN_SERVER_PORT": url.rpartition(":")[2] or "0",
        }
        done = subprocess.run(given, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout or done.stderr

    shown("everlearn init")
    written = (tmp_path / "everlearn.toml").read_text()
    run += [each for each in COMMANDS if each == "everlearn serve"]
    with RunningService(tmp_path, written) as service:
        assert f"80 items of buyers.csv are in the log of {service.url}" in shown("everlearn feedback", service.url)
        with service.client() as client:
            assert client.get("/model").json()["log_seq"] == 80
        assert "is ready" in shown("everlearn doctor", service.url)
    assert (tmp_path / "everlearn.toml").read_text() == written
    shown("everlearn evaluate")
    with Image.open(tmp_path / "curve.png") as image:
        assert min(image.size) > 300
    with RunningService(labelled.parent.parent, PICTURES) as service:
        done = everlearn("feedback", str(labelled.parent), "--url", service.url)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["label"] for line in shown("everlearn predict", service.url).splitlines()] == ["cat", "cat"]
        assert json.loads(shown("curl", service.url))["predictions"][0]["label"] == "cat"
    assert sorted(run) == sorted(COMMANDS)


@pytest.mark.long
@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_that_is_named_comes_to_its_end(name: str, tmp_path: Path) -> None:
    assert demo_shown(name, tmp_path)
