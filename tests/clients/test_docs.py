"""docs/clients.md, executed: its Python on a service of its configuration, and its commands with the output that it shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from typer.testing import CliRunner

from service.cli import app
from service.store.embedded import DataDirectory
from service.templates import render
from tests.answers import SHOWN_URL
from tests.running import DIGITS, ROOT, RunningService, learn

PAGE = (ROOT / "docs" / "clients.md").read_text()
PYTHON = re.findall(r"^```py\n(.*?)^```\n+It prints `(.*?)`", PAGE, re.M | re.S)
BUYERS = (
    "age,city,member,buys\n20,Bern,true,no\n60,Oslo,false,yes\n21,Bern,true,no\n61,,false,yes\n22,Bern,,no\n62,Oslo,false,yes\n"
)


def commands() -> dict[str, str]:
    """Return what the page shows below each command of everlearn."""
    blocks = re.findall(r"^```\n\$ everlearn (.*?)\n(.*?)^```", PAGE, re.M | re.S)
    return dict(blocks)


def test_the_python_prints_what_the_page_says(tmp_path: Path) -> None:
    (config,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
    assert len(PYTHON) == PAGE.count("```py\n") == 2
    with RunningService(tmp_path, config) as service:
        for code, shown in PYTHON:
            printed = StringIO()
            with redirect_stdout(printed):
                exec(code.replace(SHOWN_URL, service.url).replace("127.0.0.1:8000", service.url.removeprefix("http://")), {})
            assert printed.getvalue().strip() == shown


def test_the_array_of_the_page_is_answered(tmp_path: Path) -> None:
    (config,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
    ((save, send),) = re.findall(r"^```\n(python .*)\n(curl .*)\n^```", PAGE, re.M)
    with RunningService(tmp_path, config) as service:
        with service.client() as client:
            learn(client, [([number, 1], "right" if number > 0 else "left") for number in (-3, -2, -1, 1, 2, 3)])
        subprocess.run([sys.executable, *shlex.split(save)[1:]], cwd=tmp_path, check=True)
        answer = subprocess.run(
            shlex.split(send.replace(SHOWN_URL, service.url)), cwd=tmp_path, check=True, capture_output=True
        )
    assert [each["label"] for each in json.loads(answer.stdout)["predictions"]] == ["right", "left"]


def test_the_commands_say_what_the_page_shows(tmp_path: Path) -> None:
    (tmp_path / "buyers.csv").write_text(BUYERS)
    (tmp_path / "asked.csv").write_text("age,city,member\n63,Oslo,false\n")
    shown = commands()
    assert len(shown) == PAGE.count("\n$ everlearn") == 3
    with RunningService(tmp_path, render("record")) as service:
        for command in ("feedback buyers.csv --label buys", "predict asked.csv --top-k 1"):
            arguments = [str(tmp_path / each) if each.endswith(".csv") else each for each in command.split()]
            done = CliRunner().invoke(app, arguments, env={"EVERLEARN_URL": service.url})
            assert done.exit_code == 0, done.output
            expected = shown[command].strip()
            if command.startswith("feedback"):
                assert done.stderr.strip().replace(f"{tmp_path}/", "").replace(service.url, SHOWN_URL) == expected
            else:
                told, given = json.loads(expected), json.loads(done.stdout)
                assert (told.keys(), told["label"], told["item"]) == (given.keys(), given["label"], given["item"])


def test_the_doctor_finds_what_the_page_shows(tmp_path: Path) -> None:
    (tmp_path / "everlearn.toml").write_text(DIGITS.replace("64", "2") + '[access]\nmode = "keys"\n')
    DataDirectory(tmp_path / "data").create()
    arguments = ["doctor", "--config", str(tmp_path / "everlearn.toml"), "--data", str(tmp_path / "data")]
    done = CliRunner().invoke(app, arguments, env={"EVERLEARN_SERVER_PORT": "0"})
    assert done.exit_code == 0, done.output
    lines = [re.sub(r"\d{4}-.* UTC", "now", line) for line in done.stdout.splitlines()]
    for line in commands()["doctor"].splitlines():
        assert re.sub(r"\d{4}-.* UTC", "now", line) in lines


def test_the_page_names_every_call_of_the_client_and_every_error() -> None:
    import service.client
    from service.client import Client

    for name in [*(name for name in vars(Client) if not name.startswith("_")), *service.client.__all__]:
        if name not in {"close", "document", "ClassAdded", "Limits", "Model", "Status", "Taken"}:
            assert re.search(rf"\b{name}\b", PAGE), name
