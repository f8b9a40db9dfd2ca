from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.running import DIGITS, everlearn

Rows = list[list[Any]]


def write(path: Path, header: list[str], rows: Rows) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def evaluated(path: Path, label: str, *flags: str) -> dict[str, Any]:
    report = path.with_suffix(".json")
    done = everlearn("evaluate", str(path), "--label", label, "--report", str(report), *flags)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(report.read_text())
    assert f"everlearn over {figures['items']} items" in done.stdout
    return figures


def without_seconds(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name != "seconds"}


def test_a_stream_of_digits_is_learned_without_a_configuration(tmp_path: Path, digits: list[tuple[list[float], str]]) -> None:
    rows = [[*map(int, pixels), label] for pixels, label in digits[:600]]
    figures = evaluated(write(tmp_path / "digits.csv", [*(f"p{n}" for n in range(64)), "digit"], rows), "digit")
    assert figures.keys() >= {"items", "metric", "value", "value_last_1000", "seconds"}
    assert (figures["items"], figures["metric"]) == (600, "accuracy")
    assert figures["value"] > 0.8
    assert figures["value_last_1000"] == figures["value"]  # fewer than 1000
    assert figures["metrics"].keys() == {"accuracy", "balanced_accuracy", "kappa_m", "macro_f1", "log_loss", "ece"}
    assert figures["metrics"]["accuracy"] == pytest.approx(figures["value"])
    assert figures["versions"] == 600


def test_a_configuration_is_used_as_it_stands(tmp_path: Path, digits: list[tuple[list[float], str]]) -> None:
    config = tmp_path / "everlearn.toml"
    config.write_text(DIGITS)
    rows = [[label, *pixels] for pixels, label in digits[:200]]
    path = write(tmp_path / "digits.csv", ["digit", *(f"p{n}" for n in range(64))], rows)
    assert evaluated(path, "digit", "--config", str(config))["value"] > 0.5


def test_numbers_are_regressed_from_numbers_strings_booleans_and_missing_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: Rows = []
    for _ in range(800):
        size, color, big = rng.normal(), rng.choice(["red", "blue"]), rng.random() < 0.5
        price = 100 + 20 * size + (30 if color == "red" else 0) + (10 if big else 0)
        rows.append(["" if rng.random() < 0.05 else size, color, str(big).lower(), round(price, 2)])
    figures = evaluated(write(tmp_path / "prices.csv", ["size", "color", "big", "price"], rows), "price")
    assert figures["metric"] == "mae"
    assert figures["value"] < 8  # the labels' own mean absolute deviation is about 20


def test_each_row_is_predicted_before_it_is_learned_from(tmp_path: Path) -> None:
    rows = [[n % 2, f"class {n}"] for n in range(30)]  # every label is new: whoever peeks gets some right
    assert evaluated(write(tmp_path / "new.csv", ["x", "label"], rows), "label")["value"] == 0


def test_the_same_stream_gives_the_same_figures(tmp_path: Path, digits: list[tuple[list[float], str]]) -> None:
    path = write(tmp_path / "d.csv", [*(f"p{n}" for n in range(64)), "y"], [[*p, y] for p, y in digits[:100]])
    first, second = evaluated(path, "y"), evaluated(path, "y")
    assert without_seconds(first) == without_seconds(second)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the first line must name every column"),
        ("a,a,y\n1,2,3\n", "the first line must name every column, each once"),
        ("a,y\n", "has no rows"),
        ("a,b\n1,2\n", "has no column 'y'; it has a, b"),
        ("a,y\n1,x\n2\n", "line 3: 1 cells, and the header names 2"),
        ("a,y\n1,x\n2,\n", "line 3: column 'y' is empty"),
        ("y\n1\n", "nothing to predict from"),
    ],
)
def test_a_file_with_something_wrong_is_told_by_line_or_column(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    done = everlearn("evaluate", str(path), "--label", "y")
    assert done.returncode == 78
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_learning_that_diverges_is_told_by_line(tmp_path: Path) -> None:
    config = tmp_path / "everlearn.toml"
    config.write_text(
        '[model.input]\nkind = "vector"\nlength = 1\n[model.encoder]\nname = "tabular"\n[model.head]\nname = "regression"\n'
        '[learning]\noptimizer = { name = "sgd", lr = 1e30 }\n'
    )
    path = write(tmp_path / "d.csv", ["x", "y"], [[n, n * n] for n in range(50)])
    done = everlearn("evaluate", str(path), "--label", "y", "--config", str(config))
    assert done.returncode == 78
    assert re.search(r"line \d+: the update made .* infinite or not a number", done.stderr)


def test_what_is_not_known_is_null_in_the_report(tmp_path: Path) -> None:
    figures = evaluated(write(tmp_path / "d.csv", ["x", "y"], [[n, 1.5] for n in range(20)]), "y")
    assert figures["metrics"]["r2"] is None


def test_a_column_is_text_as_soon_as_one_cell_is(tmp_path: Path) -> None:
    path = write(tmp_path / "late.csv", ["x", "y"], [[1, 1], [2, 2.5], [3, 3], [4, "none"]])
    done = everlearn("evaluate", str(path), "--label", "y")
    assert "classification of y from numbers x" in done.stderr
    assert "everlearn over 4 items" in done.stdout


def test_what_statistics_programs_write_for_a_missing_number_is_missing(tmp_path: Path) -> None:
    rows: Rows = [[n, cell, n % 2] for n, cell in enumerate(["NaN", "NA", "?", "null", "", 1.5] * 3)]
    path = write(tmp_path / "holes.csv", ["x", "z", "y"], rows)
    done = everlearn("evaluate", str(path), "--label", "y")
    assert "from numbers x, z" in done.stderr
    assert "everlearn over 18 items" in done.stdout


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_peers_run_on_the_same_rows_and_drift_is_drawn(tmp_path: Path, task: str) -> None:
    rng = np.random.default_rng(0)
    rows: Rows = []
    for index in range(900):
        x, color = rng.normal(), str(rng.choice(["red", "blue: 1", "sea|green"]))
        upside_down = -1 if index >= 600 else 1
        value = upside_down * (x + (2 if color == "red" else -1))
        rows.append(["" if rng.random() < 0.05 else x, color, str(value > 0) if task == "classification" else round(value, 3)])
    path, plot = write(tmp_path / "turn.csv", ["x", "color", "y"], rows), tmp_path / "curve.png"
    figures = evaluated(path, "y", "--against", "river", "--against", "vw", "--plot", str(plot))
    peers = figures["peers"]
    assert {"river adaptive random forest", "river nearest neighbours", "vw", "vw -q ::"} <= peers.keys()
    assert all(peer["seconds"] > 0 for peer in peers.values())
    guess, better = (0.5, 1) if task == "classification" else (1.3, -1)
    assert all(better * peer["value"] > better * guess for peer in (figures, *peers.values()))
    assert task == "classification" or [at for at in figures["drifts"] if at >= 600]  # a class may still be new
    with Image.open(plot) as image:
        assert min(image.size) > 400
        assert len(image.convert("RGB").getcolors(maxcolors=10**6) or []) > 20


@pytest.mark.parametrize("flag", ["--report", "--plot"])
def test_a_result_that_could_not_be_written_is_told_before_the_run(tmp_path: Path, flag: str) -> None:
    path = write(tmp_path / "d.csv", ["x", "y"], [[1, 1]] * 3)
    done = everlearn("evaluate", str(path), "--label", "y", flag, str(tmp_path / "nowhere" / "r.json"))
    assert done.returncode == 78
    assert done.stderr.startswith("everlearn: ")
    assert f"no folder {tmp_path / 'nowhere'}" in done.stderr


def test_a_label_that_does_not_fit_is_told_by_line_and_column(tmp_path: Path) -> None:
    config = tmp_path / "everlearn.toml"
    config.write_text(
        '[model.input]\nkind = "vector"\nlength = 1\n[model.encoder]\nname = "tabular"\n[model.head]\nname = "regression"\n'
    )
    path = write(tmp_path / "d.csv", ["x", "y"], [[1, 1], [1, "much"]])
    done = everlearn("evaluate", str(path), "--label", "y", "--config", str(config))
    assert done.returncode == 78
    assert "line 3: column 'y': 'much' is not a number" in done.stderr


def test_a_cell_that_does_not_fit_the_configuration_is_told_by_line_and_column(tmp_path: Path) -> None:
    config = tmp_path / "everlearn.toml"
    config.write_text(
        '[model.input]\nkind = "record"\nfields = { a = "number", b = "boolean" }\n'
        '[model.encoder]\nname = "tabular"\n[model.head]\nname = "classification"\n'
    )
    for content, says in [
        ("a,b,y\n1,true,x\nblue,true,x\n", "line 3: column 'a': 'blue' is not a number"),
        ("a,b,y\n1,maybe,x\n", "line 2: column 'b': 'maybe' is neither true nor false"),
        ("a,c,y\n1,true,x\n", "line 2: column 'c': "),
    ]:
        path = tmp_path / "bad.csv"
        path.write_text(content)
        done = everlearn("evaluate", str(path), "--label", "y", "--config", str(config))
        assert done.returncode == 78
        assert says in done.stderr
