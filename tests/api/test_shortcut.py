"""Requests to /predict and /feedback are answered alike past FastAPI and through it, where spans are exported."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.models.test_arrays import saved
from tests.running import RunningService, wait_for

CONFIG = """
[model.input]
kind = "vector"
length = 2
[model.encoder]
name = "tabular"
[model.head]
name = "classification"
classes = ["a", "b"]
[limits]
body_bytes = 1000
"""
JSON = {"Content-Type": "application/json"}
NPY = {"Content-Type": "application/x-npy"}
INSTANCE = b'{"instances": [[1.0, 2.0]]}'
LABEL = b'{"feedback": [{"instance": [1.0, 2.0], "label": "a"}]}'
OWN = re.compile(r'"id":"[0-9a-f]{32}"|127.0.0.1:[0-9]+')


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    folders = [tmp_path_factory.mktemp(name) for name in ("short", "whole")]
    whole = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRICS_EXPORTER": "none"}
    with (
        RunningService(folders[0], CONFIG) as one,
        RunningService(folders[1], CONFIG, environment=whole) as other,
        one.client() as short,
        other.client() as long,
    ):
        yield short, long


def said(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    """Return what must be the same: not the date, and not what is made up for each request."""
    headers = {name: OWN.sub("", value) for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    assert re.fullmatch(r"[0-9a-f]{32}|mine", answer.headers["x-request-id"])
    return answer.status_code, headers, OWN.sub("", answer.text)


@pytest.mark.parametrize("path", ["/predict", "/feedback"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused_alike(answers: tuple[httpx.Client, httpx.Client], method: str, path: str) -> None:
    one, other = (said(client.request(method, path)) for client in answers)
    assert one == other
    assert one[0] == 405


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/predict", INSTANCE, JSON, 200),
        ("/predict", INSTANCE, {**JSON, "X-Request-ID": "mine"}, 200),
        ("/predict/", INSTANCE, JSON, 307),
        ("/predict?top_k=1", INSTANCE, JSON, 200),
        ("/predict?top_k=1", saved(np.ones((2, 2))), NPY, 200),
        ("/predict", saved(np.ones((2, 3))), NPY, 422),
        ("/predict", saved(np.ones((2, 2)))[:-1], NPY, 400),
        ("/predict", b"{", JSON, 400),
        ("/feedback", b"", JSON, 400),
        ("/predict", b'{"instances": [[NaN, 1.0]]}', JSON, 400),
        ("/predict", b'{"instances": [[1.0]]}', JSON, 422),
        ("/feedback", LABEL.replace(b'"a"', b"[]"), JSON, 422),
        ("/predict", b"1,2", {"Content-Type": "text/csv"}, 415),
        ("/feedback", b"1,2", {"Content-Type": "text/csv"}, 415),
        ("/predict", INSTANCE + b" " * 1000, JSON, 413),
        ("/feedback", LABEL + b" " * 1000, JSON, 413),
    ],
)
def test_requests_are_answered_alike(
    answers: tuple[httpx.Client, httpx.Client], path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    one, other = (said(client.post(path, content=body, headers=headers)) for client in answers)
    assert one == other
    assert one[0] == status


def test_feedback_is_acknowledged_alike(answers: tuple[httpx.Client, httpx.Client]) -> None:
    one, other = (said(client.post("/feedback", content=LABEL, headers=JSON)) for client in answers)
    assert one == other
    assert one[0] == 202
    wait_for(lambda: all(client.get("/model").json()["lag"] == 0 for client in answers), "the label to be served by both")
