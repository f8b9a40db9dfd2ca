from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.answers import check_commands
from tests.running import ROOT, everlearn, wait_for


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the demo writes."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(demo_folder: Path) -> Iterator[tuple[str, str]]:
    """Run `everlearn demo` to its end and let it serve on; give its URL and what it printed."""
    printed = demo_folder / "out"
    flags = ["--data", str(demo_folder / "data"), "--port", "0"]
    files = ["--report", str(demo_folder / "report.json"), "--plot", str(demo_folder / "curve.png")]
    with printed.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "demo", *flags, *files], stdout=out, stderr=out, cwd=ROOT
        )
    try:
        wait_for(lambda: "/model\n" in printed.read_text() or process.poll() is not None, "the demo to serve on", 300)
        text = printed.read_text()
        assert process.poll() is None, text
        yield text.split("serving on ")[1].split(",")[0], text
    finally:
        process.terminate()
        process.wait(60)


def test_the_demo_learns_and_loses_nothing(demo: tuple[str, str], demo_folder: Path) -> None:
    figures = json.loads((demo_folder / "report.json").read_text())
    assert figures["items"] == figures["versions"] == 1797
    assert figures["accuracy"] >= 0.92
    assert figures["accuracy_last_500"] >= 0.97
    assert (figures["lost"], figures["duplicated"], figures["replay_identical"]) == (0, 0, True)
    for name in ("feedback_to_served_ms", "predict_ms"):
        assert 0 < figures[name]["p50"] <= figures[name]["p99"]


def test_the_demo_draws_its_learning_curve(demo: tuple[str, str], demo_folder: Path) -> None:
    with Image.open(demo_folder / "curve.png") as image:
        assert min(image.size) > 400
        assert len(image.convert("RGB").getcolors(maxcolors=10**6) or []) > 20


def test_the_demos_curl_lines_work_while_it_serves_on(demo: tuple[str, str]) -> None:
    _, printed = demo
    lines = [line for line in printed.splitlines() if line.startswith("curl ")]
    assert len(lines) == 3
    for line in lines:
        answer = subprocess.run([*shlex.split(line), "-w", "\n%{http_code}"], capture_output=True, text=True, check=True)
        assert re.search(r"\n20[02]$", answer.stdout), answer.stdout


def test_the_curl_lines_give_the_answers_that_the_readme_shows(demo: tuple[str, str]) -> None:
    url, _ = demo
    examples = re.findall(r"^\$ (curl .*)\n(.*)$", (ROOT / "README.md").read_text(), re.M)
    assert len(examples) == 2
    wait_for(lambda: _learned(url) is not None, "the labels that the demo's own lines gave to be learned")
    check_commands(examples, url, already=(_learned(url) or 0) - 1797)


def test_the_demo_ends_by_itself_and_takes_its_service_along(tmp_path: Path) -> None:
    flags = [
        "--once",
        "--data",
        str(tmp_path / "data"),
        "--report",
        str(tmp_path / "r.json"),
        "--plot",
        str(tmp_path / "c.png"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "demo", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        text=True,
    )
    wait_for(lambda: _serving(tmp_path), "the service to start")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert "Traceback" not in output
    assert process.returncode != 0
    wait_for(lambda: not _serving(tmp_path), "the service to end")


def _learned(url: str) -> int | None:
    """Return the newest seq once the served version holds it."""
    model = httpx.get(f"{url}/model").json()
    return int(model["log_seq"]) if model["log_seq"] == model["model_version"] else None


def _serving(folder: Path) -> bool:
    return any(_serves(pid, folder) for pid in os.listdir("/proc") if pid.isdecimal())


def _serves(pid: str, folder: Path) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text()
        return "\0serve\0" in command and str(folder) in command
    except OSError:
        return False


def test_a_demo_on_a_port_that_is_taken_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "service.cli", "demo", "--once", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=400, check=False)
    assert done.returncode == 78
    assert f"can't listen on 127.0.0.1 port {port}: Address already in use" in done.stderr


@pytest.mark.parametrize("flag", ["--report", "--plot"])
def test_a_demo_that_could_not_write_its_results_says_so_before_it_runs(tmp_path: Path, flag: str) -> None:
    command = [sys.executable, "-m", "service.cli", "demo", "--once", flag, str(tmp_path / "nowhere" / "file")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False)
    assert done.returncode == 78
    assert "nowhere" in done.stderr


def shown(name: str, folder: Path) -> dict[str, Any]:
    """Run a demo to its end; return its report."""
    paths = ["--report", str(folder / "r.json"), "--plot", str(folder / "c.png")]
    done = everlearn("demo", name, "--once", "--port", "0", *paths)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "c.png") as image:
        assert min(image.size) > 400
    figures: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return figures


def test_a_class_is_taught_by_a_sentence_and_five_photos(tmp_path: Path) -> None:
    figures = shown("teach", tmp_path)
    course = figures["accuracy_after_sentence_and_photos"]
    assert course[0] > 0.5
    assert course[-1] > 0.7
    assert figures["accuracy_on_the_others"] > 0.7


@pytest.mark.long
def test_described_classes_are_answered_among_all_others(tmp_path: Path) -> None:
    figures = shown("zeroshot", tmp_path)
    assert figures["unseen_accuracy"] >= 0.85
    assert figures["harmonic_accuracy"] >= 0.85


@pytest.mark.long
def test_negation_is_learned_in_two_languages(tmp_path: Path) -> None:
    figures = shown("sentiment", tmp_path)
    assert figures["everlearn"]["end"] > 0.95
    assert list(figures["answers"].values()) == ["positive", "negative", "positive"]


@pytest.mark.long
def test_a_pretrained_backbone_needs_fewer_labels(tmp_path: Path) -> None:
    figures = shown("transfer", tmp_path)
    assert figures["pretrained"]["accuracy"] > figures["from_nothing"]["accuracy"] + 0.3
