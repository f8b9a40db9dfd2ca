from __future__ import annotations

import json
import re
import sqlite3
import tomllib
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.checkpointing import shaping_of
from service.cli import Template, app
from service.processes import EXIT_CONFIG
from service.settings import Settings, load_settings
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore
from tests.running import DIGITS, ROOT, RunningService, everlearn, learn

Digits = list[tuple[list[float], str]]
COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_every_option_has_help(command: str) -> None:
    done = everlearn(command, "--help", COLUMNS="200", TERM="dumb")
    assert done.returncode == 0
    for line in re.findall(r"--[a-z-]+ .*", done.stdout):
        assert re.search(r"[A-Za-z]{3,} .*[A-Za-z]{2,}.*\.", line), f"an option without help: {line}"


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [command for command in COMMANDS if f"everlearn {command}" not in readme] == []


def test_the_version_is_the_changelogs_newest() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest
    assert newest[1] == version("everlearn")


@pytest.mark.parametrize("template", list(Template))
def test_init_writes_a_configuration_that_loads_and_mentions_every_setting(tmp_path: Path, template: str) -> None:
    done = everlearn("init", "--template", template, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "everlearn.toml").read_text()
    assert load_settings(tmp_path / "everlearn.toml").model == tomllib.loads(text)["model"]
    for section, field in Settings.model_fields.items():
        if section != "model":
            for name in type(field.default).model_fields:
                assert re.search(rf"^(# )?(\[{section}\.)?{name}( =|\])", text, re.M), f"{section}.{name}"


def test_a_template_with_every_comment_taken_off_says_the_defaults(tmp_path: Path) -> None:
    everlearn("init", "--template", "digits", cwd=tmp_path)
    path = tmp_path / "everlearn.toml"
    before = load_settings(path)
    uncommented = re.sub(r"^# ([a-z_]+ = |\[)", r"\1", path.read_text(), flags=re.M)
    path.write_text(uncommented)
    after = load_settings(path)
    assert shaping_of(after) == shaping_of(before)
    assert after.model_dump(exclude={"model"}) == before.model_dump(exclude={"model"})


def test_init_lists_every_template_and_wants_one(tmp_path: Path) -> None:
    listed = everlearn("init", "--list", cwd=tmp_path)
    assert {line.split()[0] for line in listed.stdout.splitlines()} == {template.value for template in Template}
    nothing = everlearn("init", cwd=tmp_path)
    assert nothing.returncode == EXIT_CONFIG
    assert "--list" in nothing.stderr
    assert not list(tmp_path.iterdir())


def test_init_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "everlearn.toml").write_text("precious")
    done = everlearn("init", "--template", "digits", cwd=tmp_path)
    assert done.returncode != 0
    assert (tmp_path / "everlearn.toml").read_text() == "precious"
    assert done.stderr.startswith("everlearn: ")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"EVERLEARN_SERVER_PORT": "yes"}, "server.port"),
        ({"EVERLEARN_SERVER_PROT": "1"}, "server.prot: no such setting; allowed: access_log, drain_seconds, grace_seconds"),
        ({"EVERLEARN_SERVING_DEVICE": "tpu"}, "serving.device"),
        ({"EVERLEARN_MODEL": "{x"}, "EVERLEARN_MODEL: not valid JSON"),
        (
            {"EVERLEARN_LEARNING_OPTIMIZER": "sgd", "EVERLEARN_LEARNING_DRIFT": "none"},
            "EVERLEARN_LEARNING_OPTIMIZER: not valid",
        ),
        ({"EVERLEARN_NOWHERE_X": "1"}, "EVERLEARN_NOWHERE_X: no such section; allowed: model"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, environment: dict[str, str], says: str) -> None:
    (tmp_path / "everlearn.toml").write_text(DIGITS)
    done = everlearn("serve", cwd=tmp_path, **environment)
    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("", "model: missing; write a configuration with `everlearn init"),
        ("[model", "everlearn.toml is not valid TOML"),
        (
            DIGITS.replace('"tabular"', '"tabluar"'),
            "model.encoder.name: 'tabluar' is not one of convolutional",
        ),
        (DIGITS.replace("64", "-1"), "model.input.length"),
        (
            DIGITS + "[learning.optimizer]\nname = 'adam'\nrate = 1\n",
            "learning.optimizer.rate: no such option; allowed: amsgrad",
        ),
        (
            DIGITS.replace("[model.input]", "[modle]\n[model.input]"),
            "modle: no such setting; allowed: access, explanations, gate",
        ),
        ("[modle]\n", "modle: no such setting; allowed: access, explanations, gate"),
        (DIGITS.replace('"tabular"', '["tabular"]'), "model.encoder.name: ['tabular'] is not one of convolutional"),
        ("[model]\nclass = 'nowhere:Model'\n", "model.class: can't import 'nowhere:Model'"),
        ("[model]\nclass = 'wrong:Model'\n", "SyntaxError: "),
        ("[model]\nclass = 'raising:Model'\n", "raising:Model can't be made (RuntimeError: no; raising.py line 4)"),
    ],
)
def test_a_wrong_configuration_stops_the_start_with_one_line(tmp_path: Path, config: str, says: str) -> None:
    (tmp_path / "everlearn.toml").write_text(config)
    (tmp_path / "wrong.py").write_text("class Model(:\n")
    (tmp_path / "raising.py").write_text(
        "from models import OnlineModel\nclass Model(OnlineModel):\n    def __init__(self):\n        raise RuntimeError('no')\n"
    )
    done = everlearn("serve", "--port", "0", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 78
    last = done.stderr.splitlines()[-1]
    assert last.startswith("everlearn: ")
    assert says in last
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_text_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "everlearn.toml").write_bytes(b"# \xff\n")
    done = everlearn("serve", cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr.startswith("everlearn: everlearn.toml is not in UTF-8")
    assert len(done.stderr.splitlines()) == 1


def test_flags_win_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "everlearn.toml"
    path.write_text(DIGITS + '[server]\nport = 1\nhost = "a"\nworkers = 2\n')
    monkeypatch.setenv("EVERLEARN_SERVER_PORT", "2")
    monkeypatch.setenv("EVERLEARN_SERVER_HOST", "b")
    server = load_settings(path, {"server": {"port": 3}}).server
    assert (server.port, server.host, server.workers) == (3, "b", 2)


def test_versions_and_replay_read_what_a_service_left(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        with service.client() as client:
            learn(client, digits[:3])
            number = learn(client, digits[3:5])["model_version"]
        listed = everlearn("versions", "--data", str(service.data), COLUMNS="200")  # beside the running service
        assert listed.returncode == 0, listed.stderr
        assert "4..5" in listed.stdout
        assert "initial" in listed.stdout
        newest, *_ = (
            json.loads(line) for line in everlearn("versions", "--data", str(service.data), "--json").stdout.splitlines()
        )
        assert (newest["version"], newest["last_seq"], newest["stored"]) == (number, 5, True)
        acted = everlearn("rollback", "0", "--data", str(service.data))
        refused = everlearn("release", "1", "--data", str(service.data))
        assert (acted.returncode, refused.returncode) == (0, 78)
        assert "version 1 has no feedback in quarantine" in refused.stderr
        listed = everlearn("versions", "--data", str(service.data))
        assert max(map(len, listed.stdout.splitlines())) <= 80
        assert "refusal" in listed.stdout
        assert "in quarantine" not in listed.stdout
        told = [json.loads(line) for line in everlearn("audit", "--data", str(service.data), "--json").stdout.splitlines()]
        assert [(each["act"], each.get("status"), each.get("seq")) for each in reversed(told)] == [
            ("rollback", None, None),
            ("rollback", "applied", 6),
            ("release", None, None),
            ("release", "refused", 7),
        ]
        with service.client() as client:
            assert "everlearn_quarantined_total 0.0" in client.get("/metrics").text
        service.stop()
    done = everlearn("replay", "--data", str(service.data), "--verify")
    assert done.returncode == 0, done.stderr
    assert f"{number + 2} versions replayed, every one bit-identical" in done.stderr


def test_replay_makes_one_version_anew_beside_the_service_and_writes_its_files(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service, service.client() as client:
        for item in digits[:3]:
            learn(client, [item])
        done = everlearn("replay", "--data", str(service.data), "--to", "2", "--output", str(tmp_path / "two"))
        sha256 = client.get("/versions/2").json()["sha256"]
    assert done.returncode == 0, done.stderr
    assert f"version 2, made anew, is bit-identical to what was committed: {sha256}" in done.stderr
    assert len(list((tmp_path / "two").iterdir())) == 3


@pytest.mark.parametrize("flags", [[], ["--to", "1", "--verify"], ["--verify", "--output", "there"]])
def test_replay_wants_to_know_what_to_replay(tmp_path: Path, flags: list[str]) -> None:
    done = everlearn("replay", "--data", str(tmp_path), *flags, TERM="dumb", COLUMNS="200")
    assert done.returncode == 2
    assert "say --verify, or --to with a version; --output goes with --to" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("forget",),
        ("rollback",),
        ("release",),
        ("whatif", "--without"),
        ("replay", "--to"),
        ("export", "--output", "x", "--version"),
        ("versions", "--limit"),
        ("audit", "--limit"),
    ],
)
def test_a_number_that_is_none_of_the_log_is_told_as_such(command: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, [*command, str(2**63)]).exit_code == 2


def test_replay_names_the_first_version_that_differs(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        with service.client() as client:
            for item in digits[:4]:
                learn(client, [item])
        service.stop()
    checkpoints = EmbeddedCheckpointStore(DataDirectory(service.data).open(), keep=2)
    with checkpoints._database.write() as connection:
        connection.execute("UPDATE versions SET crc = NULL, sha256 = 'other' WHERE version IN (2, 4)")
    checkpoints.close()
    done = everlearn("replay", "--data", str(service.data), "--verify")
    assert done.returncode == 1
    assert "version 2 differs" in done.stderr


def test_replay_names_what_the_log_does_not_have(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        with service.client() as client:
            learn(client, digits[:2])
        service.stop()
    with closing(sqlite3.connect(service.data / "feedback.db")) as database, database:
        database.execute("DELETE FROM feedback WHERE seq = 2")
    done = everlearn("replay", "--data", str(service.data), "--verify")
    assert done.returncode == 1
    assert done.stderr.strip() == "everlearn: version 1 learned from seq 2, which the log does not have"


def test_replay_of_what_a_gpu_learned_needs_one(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        service.stop()
    with closing(sqlite3.connect(service.data / "versions.db")) as database, database:
        database.execute("UPDATE versions SET crc = NULL, environment = json_set(environment, '$.device', 'cuda:99')")
    done = everlearn("replay", "--data", str(service.data), "--verify")
    assert done.returncode == 78
    assert done.stderr.strip().startswith("everlearn: learner.device: 'cuda:99' is not there")


def test_replay_says_when_the_environment_differs(tmp_path: Path, digits: Digits) -> None:
    with RunningService(tmp_path, DIGITS) as service:
        with service.client() as client:
            learn(client, digits[:1])
        service.stop()
    checkpoints = EmbeddedCheckpointStore(DataDirectory(service.data).open(), keep=2)
    with checkpoints._database.write() as connection:
        connection.execute(
            "UPDATE versions SET crc = NULL, sha256 = 'other', environment = json_set(environment, '$.torch', '1.0')"
        )
    checkpoints.close()
    done = everlearn("replay", "--data", str(service.data), "--verify")
    assert done.returncode == 1
    assert "environment differs" in done.stderr


@pytest.mark.parametrize("command", [("versions",), ("replay", "--verify")])
def test_a_directory_that_is_not_there_is_told_in_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = everlearn(*command, "--data", str(tmp_path / "nothing"))
    assert done.returncode == 78
    assert done.stderr.strip() == f"everlearn: {tmp_path / 'nothing'} is not an everlearn data directory (no everlearn.json)"
    assert not (tmp_path / "nothing").exists()
