"""`everlearn doctor` on what is well, and on what is not."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from service.store.embedded import DataDirectory
from tests.running import DIGITS, RunningService, everlearn, learn, wait_for


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("service"), DIGITS) as running:
        with running.client() as client:
            learn(client, [([0.0] * 64, "a")])
        yield running


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def doctor(folder: Path, config: str = DIGITS, *flags: str, **environment: str) -> Result:
    """Run the command in this process."""
    (folder / "doctor.toml").write_text(config)
    defaults = {"EVERLEARN_STORE_DATA": str(folder / "data"), "EVERLEARN_SERVER_PORT": free_port()}
    arguments = ["doctor", "--config", str(folder / "doctor.toml"), *flags]
    return CliRunner().invoke(app, arguments, env={**defaults, **environment})


def told(done: Result) -> dict[str, tuple[str, str]]:
    """Return (state, words) of each thing; the last one where there are several of a name."""
    lines = re.findall(r"^(ok|look|wrong) +(\w+) +(.*)$", done.stdout, re.M)
    return {about: (state, words) for state, about, words in lines}


def test_before_the_first_start_all_is_well(tmp_path: Path) -> None:
    done = everlearn("init", "--template", "digits", cwd=tmp_path)
    done = everlearn("doctor", cwd=tmp_path, EVERLEARN_SERVER_PORT=free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}
    assert "weights that learn" in done.stdout
    assert not (tmp_path / "everlearn-data").exists()


def test_that_the_encoder_can_be_compiled_is_tried(tmp_path: Path) -> None:
    (tmp_path / "everlearn.toml").write_text(DIGITS + "[serving]\ncompile = true\n")
    done = everlearn("doctor", cwd=tmp_path, EVERLEARN_SERVER_PORT=free_port(), CXX="/nowhere/c++")
    assert done.returncode == 1, done.stdout + done.stderr
    (found, advice) = re.search(r"^wrong  compiler +(.*)\n +-> (.*)$", done.stdout, re.M).groups()  # type: ignore[union-attr]
    assert found.startswith("serving.compile: the encoder Tabular can't be compiled")
    assert "apt-get install g++" in advice


def test_a_service_that_runs_is_seen_and_its_directory_looked_into(service: RunningService) -> None:
    done = doctor(service.folder, EVERLEARN_SERVER_PORT=service.url.rpartition(":")[2])
    assert done.exit_code == 0, done.stdout
    found = told(done)
    assert found["service"] == ("ok", f"{service.url} is ready, and a learner works on {service.data}")
    assert found["port"][1].endswith("is the running service's")
    assert found["data"] == ("ok", f"{service.data} holds version 1 and the log up to seq 1")
    assert found["permissions"][0] == "ok"


def test_a_proxy_of_the_environment_is_not_asked_for_what_is_here(service: RunningService) -> None:
    here = {"EVERLEARN_SERVER_PORT": service.url.rpartition(":")[2], "EVERLEARN_STORE_DATA": str(service.data)}
    done = doctor(service.data.parent, DIGITS, **here, HTTP_PROXY=f"http://127.0.0.1:{free_port()}", NO_PROXY="")
    assert told(done)["service"] == ("ok", f"{service.url} is ready, and a learner works on {service.data}")


def test_a_service_without_a_learner_is_wrong_though_it_is_ready(service: RunningService, tmp_path: Path) -> None:
    done = doctor(tmp_path, EVERLEARN_SERVER_PORT=service.url.rpartition(":")[2])
    assert told(done)["service"] == ("wrong", f"{service.url} is ready, and no learner works on {tmp_path / 'data'}")
    assert "another data directory" in done.stdout


def test_a_service_that_leaves_is_not_ready(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS + "[server]\ndrain_seconds = 30\n") as service:
        service.terminate()
        with service.client() as client:
            wait_for(lambda: client.get("/readyz").status_code == 503, "the service to leave")
        done = doctor(tmp_path, EVERLEARN_SERVER_PORT=service.url.rpartition(":")[2])
        assert done.exit_code == 1
        assert told(done)["service"] == ("wrong", f"{service.url} is not ready: the service is stopping")
        assert "-> it was told to stop" in done.stdout


@pytest.mark.parametrize(
    ("config", "environment", "about", "says", "advice"),
    [
        (DIGITS.replace("tabular", "tabluar"), {}, "model", "'tabluar' is not one of", "everlearn init --list"),
        (DIGITS, {"EVERLEARN_SERVING_DEVICE": "cuda:99"}, "device", "cuda:99' is not there", '"cpu"'),
        (DIGITS, {"EVERLEARN_SERVER_HOST": "0.0.0.0"}, "access", "on 0.0.0.0 everybody", "docs/security.md"),
        (DIGITS + '[access]\nmode = "jwt"\n', {}, "access", "access.issuer: missing", "docs/security.md"),
        (DIGITS, {"EVERLEARN_SERVER_HOST": "nowhere.invalid"}, "access", "'nowhere.invalid' is no address", ""),
        (DIGITS, {"EVERLEARN_STORE_DATA": "/proc"}, "write", "/proc can't be written", "mount /proc so that"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    tmp_path: Path, config: str, environment: dict[str, str], about: str, says: str, advice: str
) -> None:
    done = doctor(tmp_path, config, **environment)
    assert done.exit_code == 1
    state, words = told(done)[about]
    assert state == "wrong"
    assert says in words
    assert advice in done.stdout.split(words)[1].splitlines()[1]


def test_a_key_service_without_keys_is_worth_a_look_and_not_wrong(tmp_path: Path) -> None:
    done = doctor(tmp_path, DIGITS + '[access]\nmode = "keys"\n')
    assert done.exit_code == 0
    assert told(done)["access"] == ("look", "nobody may call yet")


def test_a_directory_that_others_can_read_or_that_has_other_settings_is_named(service: RunningService, tmp_path: Path) -> None:
    service.data.chmod(0o755)
    done = doctor(service.folder)
    assert done.exit_code == 0
    assert told(done)["permissions"][0] == "look"
    assert f"-> chmod 700 {service.data}" in done.stdout
    service.data.chmod(0o700)
    other = doctor(service.folder, DIGITS.replace("64", "65"))
    assert other.exit_code == 1
    assert "model.input.length was 64 and is now 65" in told(other)["data"][1]
    misspelt = doctor(service.folder, DIGITS.replace("tabular", "tabluar"))
    assert (told(misspelt)["model"][0], told(misspelt)["data"][0]) == ("wrong", "look")


def test_a_directory_of_something_else_or_of_the_future_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("x")
    assert "is not an everlearn data directory" in told(doctor(tmp_path))["data"][1]
    DataDirectory(tmp_path / "new").create()
    (tmp_path / "new" / "everlearn.json").write_text(json.dumps({"format": 99}))
    assert "has format 99" in told(doctor(tmp_path, DIGITS, EVERLEARN_STORE_DATA=str(tmp_path / "new")))["data"][1]


def test_a_version_from_the_future_means_that_the_clock_is_wrong(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        assert service.stop() == 0
    with sqlite3.connect(service.data / "versions.db") as versions:
        versions.execute("UPDATE versions SET created_at = created_at + 3600, crc = NULL")
    done = doctor(tmp_path)
    assert (told(done)["clock"][0], done.exit_code) == ("wrong", 1)
    assert "from now, by the clock" in told(done)["clock"][1]


def test_a_port_that_another_program_has_is_wrong(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        done = doctor(tmp_path, EVERLEARN_SERVER_PORT=str(taken.getsockname()[1]))
    assert told(done)["port"][0] == "wrong"
    assert "Address already in use" in told(done)["port"][1]


def test_a_configuration_that_can_not_be_read_is_one_line(tmp_path: Path) -> None:
    done = doctor(tmp_path, "[model")
    assert done.exit_code == 78
    assert "not valid TOML" in done.stderr
