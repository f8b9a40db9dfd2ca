"""The whole OpenAPI document of a running service under schemathesis, with every check it has, and with access off and on.

Allowed is what the document says and nothing else, and of 5xx only the 503 of a service that has too much to do. Every run says
its seed, and SEED=... repeats it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.access.keys import add_key
from service.store.embedded import DataDirectory
from tests.running import RunningService, learn

SMALL = """
[model.input]
kind = "record"
[model.input.fields]
size = "number"
colour = "string"
new = "boolean"
[model.encoder]
name = "tabular"
[model.head]
name = "classification"
experts = ["linear", "bilinear"]
max_classes = 200
"""
KEYED = SMALL + '[access]\nmode = "keys"\n'

# A valid request may still be refused: the id of a prediction that was never made, a version that is not there.
CHECKS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 422, 429, 503]
[checks.negative_data_rejection]
expected-statuses = ["4xx", 503]
"""


@dataclass(frozen=True)
class Fuzz:
    """How much of it: test cases at least, and generated ones for each operation in one round."""

    cases: int
    each: int


FEW, MANY = Fuzz(cases=300, each=5), Fuzz(cases=50_000, each=300)


def fuzz(service: RunningService, folder: Path, size: Fuzz, config: str = "") -> int:
    """Fuzz in rounds, each of another seed, until there are enough cases; return how many there were."""
    seed = int(os.environ.get("SEED", random.randrange(2**31)))
    cases = 0
    while cases < size.cases:
        report = run(service, folder, size.each, seed, CHECKS + config)
        found = json.dumps(report["failures"] + report["errors"], indent=1)
        assert report["exit_code"] == 0, f"seed {seed}: {found}\n{(folder / 'out').read_text()[-20_000:]}"
        assert report["operations"]["tested"] == report["operations"]["total"] > 12
        cases += report["test_cases"]["generated"]
        print(f"seed {seed}: {cases} cases")
        seed += 1
    return cases


def run(service: RunningService, folder: Path, each: int, seed: int, config: str) -> dict[str, Any]:
    (folder / "schemathesis.toml").write_text(config)
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    options = ["--checks", "all", "--max-examples", str(each), "--seed", str(seed), "--continue-on-failure", "--no-shrink"]
    written = ["--report", "json", "--report-json-path", str(report), "--warnings", "off", "--suppress-health-check", "all"]
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "--no-color"]
    with (folder / "out").open("w") as out:
        subprocess.run(
            [*command, "run", f"{service.url}/openapi.json", *options, *written],
            stdout=out,
            stderr=out,
            cwd=folder,
            check=False,
        )
    assert report.exists(), (folder / "out").read_text()
    parsed: dict[str, Any] = json.loads(report.read_text())
    return parsed


def check_health(service: RunningService, **headers: str) -> None:
    """The service has come through: it answers, and nothing went wrong inside."""
    with service.client(headers=headers) as client:
        assert client.get("/readyz").status_code == 200
        metrics = client.get("/metrics").text
        assert 'status="500"' not in metrics
    assert "api.failed" not in service.log()
    assert "Traceback" not in service.log()
    assert "serve.child_died" not in service.log()


def check_open(folder: Path, size: Fuzz) -> None:
    with RunningService(folder, SMALL) as service:
        with service.client() as client:
            learn(client, [({"size": 1.0}, "small"), ({"size": 9.0}, "large")])
        assert fuzz(service, folder, size) >= size.cases
        check_health(service)


def check_keyed(folder: Path, size: Fuzz) -> None:
    service = RunningService(folder, KEYED)
    DataDirectory(service.data).create()
    key = add_key(service.data / "keys.json", "fuzzer", ["predict", "feedback", "admin"])
    with service:
        with service.client(headers={"X-API-Key": key}) as client:
            learn(client, [({"size": 1.0}, "small"), ({"size": 9.0}, "large")])
        assert fuzz(service, folder, size, f'[auth.openapi.bearer]\nbearer = "{key}"\n') >= size.cases
        check_health(service, **{"X-API-Key": key})
        assert key not in service.log()
        assert key not in (service.data / "audit.jsonl").read_text()


def test_the_service_keeps_to_its_document(tmp_path: Path) -> None:
    check_open(tmp_path, FEW)


def test_the_service_keeps_to_its_document_where_callers_need_a_key(tmp_path: Path) -> None:
    check_keyed(tmp_path, FEW)


@pytest.mark.long
def test_the_service_keeps_to_its_document_over_fifty_thousand_cases(tmp_path: Path) -> None:
    check_open(tmp_path, MANY)


@pytest.mark.long
def test_the_service_keeps_to_its_document_over_fifty_thousand_cases_with_keys(tmp_path: Path) -> None:
    check_keyed(tmp_path, MANY)
