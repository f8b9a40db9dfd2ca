"""The dashboard and the scrape configuration that are shipped, answered by a real Prometheus that watches a real service."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.gateway.running import free_port
from tests.running import DIGITS, ROOT, RunningService, learn, wait_for

DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "dashboards" / "everlearn.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
INSTANCE = [1.0] * 64

needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Prometheus (Debian: prometheus)")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("prometheus")
    with RunningService(folder, DIGITS) as service, service.client() as client:
        config = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())
        config["global"]["scrape_interval"] = "200ms"
        (job,) = config["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [service.url.removeprefix("http://")]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        with (folder / "prometheus.log").open("wb") as log:
            watching = subprocess.Popen(
                ["prometheus", *flags, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as asked:
                wait_for(lambda: found(asked, "everlearn_build_info"), "Prometheus to see the service")
                for _ in range(3):
                    learn(client, [(INSTANCE, "one")])
                    client.post("/predict", json={"instances": [INSTANCE]}).raise_for_status()
                wait_for(lambda: found(asked, "everlearn_model_version == 3"), "what was done to be seen")
                yield asked
        finally:
            watching.terminate()
            watching.wait(30)


def found(prometheus: httpx.Client, query: str) -> list[Any]:
    """Return the series that a query gives; none before Prometheus answers."""
    try:
        answer = prometheus.get("/api/v1/query", params={"query": query})
    except httpx.TransportError:
        return []
    assert answer.status_code in (200, 503), answer.text
    series: list[Any] = answer.json()["data"]["result"] if answer.status_code == 200 else []
    return series


@needs_prometheus
@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_dashboard_has_an_answer(prometheus: httpx.Client, query: str) -> None:
    assert wait_for(lambda: found(prometheus, query), f"{query} to be answered", 20)


@needs_prometheus
def test_the_metrics_are_what_promtool_wants(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS) as service, service.client() as client:
        learn(client, [(INSTANCE, "one")])
        exposed = client.get("/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=exposed, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@needs_prometheus
def test_the_scrape_configuration_is_valid() -> None:
    command = ["promtool", "check", "config", str(ROOT / "docker" / "prometheus.yml")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
