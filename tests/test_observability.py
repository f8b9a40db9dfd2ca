"""What a service tells those who run it: the lines of its log, its metrics, its traces, and that it is about to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.running import DIGITS, RunningService, learn, wait_for

SERVER = "[server]\n"
SECRET_NUMBER = 7.654321
INSTANCE = [SECRET_NUMBER] * 64


class Collector(ThreadingHTTPServer):
    """Takes spans as an OpenTelemetry collector does, by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.spans: list[Any] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


class _Taker(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.shutdown()
    collector.server_close()


def test_a_trace_leads_from_a_prediction_over_its_feedback_to_the_update_and_the_swap(
    tmp_path: Path, collector: Collector
) -> None:
    exported = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    asked = "0af7651916cd43dd8448eb211c80319c"
    with RunningService(tmp_path, DIGITS, environment=exported, warm=False) as service, service.client() as client:
        learn(client, [(INSTANCE, "one")])
        traceparent = {"traceparent": f"00-{asked}-b7ad6b7169203331-01"}
        prediction = client.post("/predict", json={"instances": [INSTANCE]}, headers=traceparent).json()["predictions"][0]
        feedback = {"feedback": [{"prediction_id": prediction["id"], "label": "two"}]}
        answer = client.post("/feedback", json=feedback, headers={"Prefer": "wait=20"})
        assert answer.status_code == 200
        assert service.stop() == 0  # what is not exported yet is exported at the end
    (predicted,) = collector.named("POST /predict")
    assert predicted.trace_id.hex() == asked
    labelled = collector.named("POST /feedback")[-1]
    assert [link.span_id for link in labelled.links] == [predicted.span_id]
    update = next(span for span in collector.named("update") if labelled.span_id in [link.span_id for link in span.links])
    (swap,) = [span for span in collector.named("swap") if span.trace_id == update.trace_id]
    assert swap.parent_span_id in [span.span_id for span in collector.spans if span.trace_id == update.trace_id]
    assert update.start_time_unix_nano < swap.start_time_unix_nano
    assert str(SECRET_NUMBER) not in str(collector.spans)


def test_where_nobody_collects_traces_none_are_kept(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS) as service, service.client() as client:
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        items = {"feedback": [{"instance": INSTANCE, "label": "one"}]}
        assert client.post("/feedback", json=items, headers=headers | {"Prefer": "wait=20"}).status_code == 200
        assert b"0af7651916cd43dd8448eb211c80319c" not in (service.data / "feedback.db").read_bytes()


def test_every_line_of_the_log_is_an_object_with_an_event_and_no_payload(tmp_path: Path) -> None:
    config = f'{DIGITS}{SERVER}log_format = "json"\naccess_log = "all"\nlog_level = "debug"\n'
    with RunningService(tmp_path, config, warm=False) as service, service.client() as client:
        learn(client, [(INSTANCE, "a secret label")])
        client.post("/predict", json={"instances": [INSTANCE]}, headers={"X-Request-ID": "mine"})
        client.post("/predict", json={"instances": ["a secret text"]})
        assert client.get("/nowhere").status_code == 404
        assert service.stop() == 0
        lines = [json.loads(line) for line in service.log().splitlines()]
    assert all(re.fullmatch(r"[\w.]+", line["event"]) and line["role"] and line["pid"] for line in lines)
    answered = [line for line in lines if line["event"] == "http.answered"]
    mine = next(line for line in answered if line["request_id"] == "mine")
    assert (mine["method"], mine["route"], mine["status"], mine["version"], mine["instances"]) == (
        "POST",
        "/predict",
        200,
        1,
        1,
    )
    assert 0 < mine["seconds"] < 60
    assert [line["status"] for line in answered if line["route"] in ("/predict", "unmatched")] == [200, 422, 404]
    committed = next(line for line in lines if line["event"] == "learner.committed")
    assert (committed["version"], committed["seq"]) == (1, 1)
    for secret in ("secret", str(SECRET_NUMBER)):
        assert secret not in service.log()


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("exposed"), DIGITS, warm=False) as service:
        with service.client() as client:
            learn(client, [(INSTANCE, "one")])
            client.post("/predict", json={"instances": [INSTANCE, INSTANCE]}).raise_for_status()
            client.post("/predict", json={"instances": [[1]]})
        yield service


def test_metrics_are_named_by_the_rules_of_prometheus(exposed: RunningService) -> None:
    families = list(text_string_to_metric_families(httpx.get(f"{exposed.url}/metrics").text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)) > 30
    for family in families:
        assert re.fullmatch(r"everlearn(_[a-z0-9]+)+", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        assert not re.search(r"_(ms|milliseconds?|minutes?|kb|megabytes?|percent)(_|$)", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
        assert len({tuple(sorted(sample.labels.items())) for sample in family.samples}) < 400


def test_each_stage_of_a_prediction_is_counted_once_a_request(exposed: RunningService) -> None:
    samples = _samples(exposed, "/metrics")
    for stage in ("queue", "compute", "serialise"):
        assert samples[f"everlearn_predict_stage_seconds_count{{stage={stage}}}"] == 1
    assert samples["everlearn_batch_instances_sum{}"] == 2
    for operation, part in (("append", "feedback"), ("fsync", "checkpoints")):
        assert samples[f"everlearn_store_seconds_count{{operation={operation},part={part}}}"] >= 1
    assert samples["everlearn_served_version{process=worker-0}"] == samples["everlearn_model_version{}"] == 1


def test_predictions_are_shown_by_the_names_of_triton_and_kserve(exposed: RunningService) -> None:
    triton = _samples(exposed, "/metrics?names=triton")
    assert triton["nv_inference_request_success{model=everlearn}"] == 1
    assert triton["nv_inference_request_failure{model=everlearn}"] == 1
    assert triton["nv_inference_count{model=everlearn}"] == 2
    assert _samples(exposed, "/metrics?names=kserve")["request_predict_seconds_count{model_name=everlearn}"] == 1
    assert httpx.get(f"{exposed.url}/metrics?names=other").status_code == 422


def test_counters_go_on_where_a_killed_worker_left_them(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS, warm=False) as service, service.client() as client:
        learn(client, [(INSTANCE, "one")])
        for _ in range(5):
            client.post("/predict", json={"instances": [INSTANCE]}).raise_for_status()
        (worker,) = service.pids("worker")
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: _answered(service), "another worker")
        httpx.post(f"{service.url}/predict", json={"instances": [INSTANCE]}).raise_for_status()
        assert _samples(service, "/metrics")["everlearn_http_requests_total{method=POST,route=/predict,status=200}"] == 6


def test_a_service_that_drains_says_so_first_and_fails_nobody(tmp_path: Path) -> None:
    with RunningService(tmp_path, f"{DIGITS}{SERVER}drain_seconds = 3\n") as service:
        with service.client() as client:
            learn(client, [(INSTANCE, "one")])
        failures: list[str] = []
        counts = [0] * 4
        numbers = count()

        def ask() -> None:
            with service.client() as client:
                mine = next(numbers)
                while client.get("/readyz").status_code == 200:  # as a gateway does
                    answer = client.post("/predict", json={"instances": [INSTANCE]})
                    counts[mine] += 1
                    if answer.status_code != 200:
                        failures.append(answer.text)

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for thread in clients:
            thread.start()
        wait_for(lambda: all(counts), "every client to be answered")
        process = service._process
        assert process is not None
        process.terminate()
        reasons = wait_for(lambda: _reasons(service), "the service to say that it stops")
        assert reasons == ["stopping"]
        assert httpx.post(f"{service.url}/predict", json={"instances": [INSTANCE]}).status_code == 200
        for thread in clients:
            thread.join()
        assert process.wait(60) == 0
        service._process = None
    assert failures == []


def _reasons(service: RunningService) -> list[str]:
    reasons: list[str] = httpx.get(f"{service.url}/readyz").json().get("reasons", [])
    return reasons


def _answered(service: RunningService) -> bool:
    try:
        return httpx.get(f"{service.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _samples(service: RunningService, path: str) -> dict[str, float]:
    families = text_string_to_metric_families(httpx.get(f"{service.url}{path}").text)
    samples = [sample for family in families for sample in family.samples]
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sample.labels.items())}}}": sample.value
        for sample in samples
    }
