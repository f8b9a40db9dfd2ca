"""`everlearn predict` and `everlearn feedback`: files against a running service."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.calling import send_file
from service.cli import app
from service.client import Client
from service.client.files import lines_of
from service.demo.pictures import LOOKS, draw
from service.tables import StreamError
from service.templates import render
from tests.clients.gateway import BadGateway, Refusal
from tests.running import PICTURES, ROOT, RunningService, everlearn, wait_for


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("records"), render("record")) as running:
        yield running


def called(service: RunningService, *arguments: str) -> Result:
    """Run a command against a service, in this process: it would take longer to start one than to do this."""
    return CliRunner().invoke(app, arguments, env={"EVERLEARN_URL": service.url})


def log_seq(service: RunningService) -> int:
    with Client(service.url) as client:
        return client.model().log_seq


def table(path: Path, rows: int, first: int = 0) -> Path:
    lines = [f"{20 + number % 40},{['Bern', ''][number % 2]},true,{['no', 'yes'][number % 2]}" for number in range(first, rows)]
    path.write_text("\n".join(["age,city,member,buys", *lines]) + "\n")
    return path


def test_a_table_is_learned_once_however_often_it_is_sent(service: RunningService, tmp_path: Path) -> None:
    path = table(tmp_path / "buyers.csv", 700)
    before = log_seq(service)
    for _ in range(2):
        done = called(service, "feedback", str(path), "--label", "buys")
        assert done.exit_code == 0, done.stderr
        assert f"700 items of {path} are in the log of {service.url}, up to seq {before + 700}; version " in done.stderr
        assert log_seq(service) == before + 700
    predicted = called(service, "predict", str(path), "--label", "buys", "--top-k", "1")
    assert predicted.exit_code == 0, predicted.stderr
    answers = [json.loads(line) for line in predicted.stdout.splitlines()]
    assert len(answers) == 700
    assert [answer["item"] for answer in answers[:2]] == ["line 2", "line 3"]
    assert {answer["label"] for answer in answers} <= {"no", "yes"}
    assert {len(answer["scores"]) for answer in answers} == {1}


def test_the_same_rows_in_another_file_are_other_feedback(service: RunningService, tmp_path: Path) -> None:
    before = log_seq(service)
    for name, rows in (("monday.csv", 5), ("tuesday.csv", 6)):
        assert called(service, "feedback", str(table(tmp_path / name, rows)), "--label", "buys").exit_code == 0
    assert log_seq(service) == before + 11


def test_a_service_is_looked_for_where_its_configuration_says(service: RunningService, tmp_path: Path) -> None:
    path, port = table(tmp_path / "here.csv", 3), int(service.url.rpartition(":")[2])
    (tmp_path / "everlearn.toml").write_text(render("record", {"server": {"host": "0.0.0.0", "port": port}}))
    for given in ({"cwd": tmp_path}, {"EVERLEARN_SERVER_PORT": str(port)}):
        done = everlearn("predict", str(path), "--label", "buys", **given)  # type: ignore[arg-type]
        assert len(done.stdout.splitlines()) == 3, done.stderr
    done = everlearn("predict", str(path), EVERLEARN_SERVER_PORT="0")
    assert (done.returncode, "server.port: 0 takes any free port" in done.stderr) == (78, True)


def test_where_nobody_answers_the_address_is_named_before_long(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = CliRunner().invoke(app, ["feedback", str(table(tmp_path / "t.csv", 1)), "--label", "buys", "--url", url])
    assert done.exit_code == 78
    assert done.stderr.startswith(f"everlearn: {url} does not answer: ")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_what_was_cut_off_goes_on_and_doubles_nothing(service: RunningService, tmp_path: Path, end: signal.Signals) -> None:
    path = table(tmp_path / "long.csv", 1200 + end)  # of other content for each end
    before = log_seq(service)
    with BadGateway(service.url, "pass", "pass", "lose", *[Refusal(503)] * 100) as gateway:
        command = [sys.executable, "-m", "service.cli", "feedback", str(path), "--label", "buys", "--url", gateway.url]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ)
        wait_for(lambda: len(gateway.seen) > 4, "a part whose answer is lost")
        process.send_signal(end)
        _, said = process.communicate(timeout=60)
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert said.strip().splitlines()[-1].endswith("the same command goes on, and doubles nothing")
    assert log_seq(service) == before + 1000
    assert called(service, "feedback", str(path), "--label", "buys").exit_code == 0
    assert log_seq(service) == before + 1200 + end


def test_lines_of_json_are_items_or_instances_or_records(service: RunningService, tmp_path: Path) -> None:
    record = {"age": 31, "city": "Bern", "member": None}
    items = tmp_path / "items.jsonl"
    items.write_text(
        "".join(
            json.dumps({"instance": record, "label": "yes", "weight": 2, "key": f"{tmp_path}{n}"}) + "\n\n" for n in range(3)
        )
    )
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps({**record, "buys": "no"}) + "\n" for _ in range(3)))
    instances = tmp_path / "instances.jsonl"
    instances.write_text(json.dumps(record) + "\n")
    before = log_seq(service)
    assert called(service, "feedback", str(items)).exit_code == 0
    assert called(service, "feedback", str(items)).exit_code == 0
    assert called(service, "feedback", str(records), "--label", "buys").exit_code == 0
    assert log_seq(service) == before + 6
    for path, count, label in ((items, 3, ()), (instances, 1, ()), (records, 3, ("--label", "buys"))):
        done = called(service, "predict", str(path), *label)
        assert len(done.stdout.splitlines()) == count, done.stderr


def test_a_folder_of_pictures_has_its_labels_in_the_names_of_its_folders(tmp_path: Path) -> None:
    import numpy as np

    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)

    def add(label: str, name: str) -> None:
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / name).write_bytes(draw(LOOKS[0 if label == "red" else 50], rng, 32))

    for number in range(3):
        add("red", f"{number}.png")
        add("other", f"{number}.png")
    (folder / "red" / "notes.txt").write_text("no picture")
    (tmp_path / "service").mkdir()
    with RunningService(tmp_path / "service", PICTURES) as service:
        assert called(service, "feedback", str(folder)).exit_code == 0
        add("red", "late.png")
        done = called(service, "feedback", str(folder))
        assert f"7 items of {folder} are in the log of {service.url}, up to seq 7; version" in done.stderr
        assert log_seq(service) == 7
        answers: list[Any] = [json.loads(line) for line in called(service, "predict", str(folder)).stdout.splitlines()]
        assert [answer["item"] for answer in answers] == sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
        broken = folder / "other" / "1.png"
        broken.write_bytes(broken.read_bytes()[:40])
        done = called(service, "predict", str(folder))
        assert len(done.stdout.splitlines()) == 6
        assert done.exit_code == 78
        assert [line.split(":")[1] for line in done.stderr.splitlines()] == [
            " other/1.png",
            f" 1 of 7 items of {folder} were refused, the others are predicted",
        ]
        (one,) = called(service, "predict", str(folder / "red" / "0.png")).stdout.splitlines()
        assert json.loads(one)["item"] == "0.png"
        assert "one sub-folder for each label" in called(service, "feedback", str(folder / "red" / "0.png")).stderr
        assert "give a file of JSON lines, or a folder" in called(service, "predict", str(table(tmp_path / "t.csv", 1))).stderr


def test_the_pictures_of_a_folder_come_one_of_each_label_in_turn(tmp_path: Path) -> None:
    for label, count in (("a", 3), ("b", 1), ("c", 2)):
        (tmp_path / label).mkdir()
        for number in range(count):
            (tmp_path / label / f"{number}.png").write_bytes(b"")
    lines = lines_of(tmp_path, {}, label=None, labelled=True)
    assert [line.place for line in lines.read()] == ["a/0.png", "b/0.png", "c/0.png", "a/1.png", "c/1.png", "a/2.png"]


@pytest.mark.parametrize(
    ("line", "label", "labelled", "expected"),
    [
        ({"text": "good", "label": "yes"}, "label", True, ("good", "yes")),
        ({"instance": "good", "label": "yes"}, "label", True, ("good", "yes")),
        ({"instance": "good", "mood": "yes", "weight": 2}, "mood", True, ("good", "yes")),
        ({"instance": "good", "label": "yes"}, None, True, ("good", "yes")),
        ({"text": "good", "label": "yes"}, "label", False, ("good", None)),
        ({"text": "good"}, None, False, ("good", None)),
        ("good", None, False, ("good", None)),
        ({"text": "good", "label": "yes"}, None, True, "or name the field that holds the label with --label"),
        ({"text": "good", "label": "yes"}, None, False, "there are 2 fields for it: text, label; --label names"),
        ({"text": "good", "user": "me", "label": "yes"}, "label", True, "there are 2 fields for it: text, user"),
        ({"text": "good"}, "label", True, "line 1: there is no 'label' in it"),
    ],
)
def test_a_line_for_a_model_of_texts_is_understood_or_told_what_it_lacks(
    tmp_path: Path, line: Any, label: str | None, labelled: bool, expected: tuple[str, str | None] | str
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    text: dict[str, Any] = {"type": "string"}
    item = {"properties": {"label": text}}
    schemas = {
        "PredictRequest": {"properties": {"instances": {"items": text}}},
        "FeedbackRequest": {"properties": {"feedback": {"items": item}}},
    }
    read = partial(lines_of, tmp_path / "a.jsonl", {"components": {"schemas": schemas}}, label=label, labelled=labelled)
    if isinstance(expected, str):
        with pytest.raises(StreamError, match=re.escape(expected)):
            list(read().read())
    else:
        (found,) = read().read()
        told = found.feedback and found.feedback.label
        assert (found.instance, told) == expected
        assert found.feedback is None or found.feedback.weight == (line.get("weight", 1.0))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "age,city,member,buys\nold,Bern,true,no\n", "line 2: column 'age': 'old' is not a number"),
        ("a.csv", "age,city,member,buys\n1,Bern,true\n", "line 2: 3 cells, and the header names 4"),
        ("a.csv", "age,city,member\n1,Bern,true\n", "has no column 'buys'; it has age, city, member"),
        ("a.csv", "age,shoe,member,buys\n1,9,true,no\n", "line 2: column 'shoe' is none of the model's (age, city, member)"),
        ("a.csv", "age,city,member,buys\n1,Bern,true,\n", "line 2: label: "),
        ("a.jsonl", '{"age": 1, "buys": "no"}\n{"age": "x", "buys": "no"}\n', "line 2: instance/age: "),
        ("a.jsonl", '{"age": 1}\n', "line 1: there is no 'buys' in it"),
        ("a.jsonl", "[1]]\n", "line 1: it is no JSON: Extra data at column 4"),
    ],
)
def test_a_row_that_is_wrong_is_named_and_nothing_of_its_part_is_taken(
    service: RunningService, tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    before = log_seq(service)
    with pytest.raises(StreamError, match=re.escape(says)):
        send_file(tmp_path / name, service.url, None, label="buys", wait=0)
    assert log_seq(service) == before


def test_a_service_that_is_not_there_or_wants_a_key_is_said_in_one_line(service: RunningService, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", 1)
    refusal = Refusal(
        401,
        {"Content-Type": "application/problem+json"},
        b'{"type": "urn:everlearn:problem:unauthenticated", "detail": "send one key"}',
    )
    with BadGateway(service.url, refusal) as gateway:
        done = everlearn("feedback", str(path), "--label", "buys", EVERLEARN_URL=gateway.url, EVERLEARN_KEY="secret")
        assert gateway.seen[0][1]["authorization"] == "Bearer secret"
    assert (done.returncode, done.stderr) == (78, "everlearn: send one key (401 unauthenticated)\n")


def test_the_variables_of_clients_are_no_settings(tmp_path: Path) -> None:
    done = everlearn("versions", cwd=tmp_path, EVERLEARN_URL="http://x", EVERLEARN_KEY="y")
    assert "no such section" not in done.stderr


def test_a_refusal_that_blames_no_item_is_told_in_one_line(service: RunningService, tmp_path: Path) -> None:
    path = table(tmp_path / "buyers.csv", 3)
    refusal = {
        "type": "urn:everlearn:problem:invalid",
        "detail": "/top_k: too many",
        "errors": [{"pointer": "/top_k", "detail": "too many"}],
    }
    answer = Refusal(422, {"Content-Type": "application/problem+json"}, json.dumps(refusal).encode())
    with BadGateway(service.url, "pass", answer) as gateway:
        done = CliRunner().invoke(app, ["predict", str(path), "--label", "buys", "--url", gateway.url])
    assert (done.exit_code, type(done.exception)) == (78, SystemExit)
    assert "/top_k: too many (422 invalid)" in done.stderr
