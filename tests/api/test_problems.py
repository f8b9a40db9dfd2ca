"""Every row of API.md's "Overload and abuse", and what else a client may get wrong."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.running import DIGITS, RunningService, learn

Digits = list[tuple[list[float], str]]
JSON = {"Content-Type": "application/json"}

TIGHT = (
    DIGITS
    + """
[limits]
body_bytes = 4096
backlog = 3
[serving]
queue = 4
batch = 1
"""
)


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("tight"), TIGHT) as running:
        yield running


def check_problem(answer: httpx.Response, status: int, kind: str) -> None:
    """Check that an answer is problem+json of this kind, complete, and shows nothing of the inside."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert body["status"] == status
    assert body["type"].endswith(kind)
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


def test_what_no_route_expects_is_a_500_with_its_id_in_answer_metrics_and_log(tmp_path: Path) -> None:
    with RunningService(tmp_path, '[model]\nclass = "tests.api.failing:Failing"\n') as service, service.client() as client:
        learn(client, [([1.0], "a")])
        answer = client.post("/predict", json={"instances": [[1.0]]}, headers={"X-Request-ID": "mine-1"})
        check_problem(answer, 500, "internal")
        assert answer.headers["x-request-id"] == "mine-1"
        assert re.search(r"api.failed: .* request_id=mine-1$", service.log(), re.M)
        assert 'everlearn_http_requests_total{method="POST",route="/predict",status="500"} 1.0' in client.get("/metrics").text


def test_a_request_head_without_an_end_is_431_before_it_fills_the_memory(service: RunningService) -> None:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        with suppress(ConnectionError):
            for _ in range(4000):  # 40 MB
                connection.sendall(b"X-Header: " + b"x" * 10_000 + b"\r\n")
            pytest.fail("everything was taken")
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + b"X-Header: " + b"x" * 550_000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")
        assert service.log().count("Traceback") == 0


def test_many_requests_on_one_connection_are_no_large_head(service: RunningService) -> None:
    address = urlsplit(service.url)
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Padding: " + b"x" * 900 + b"\r\n\r\n"
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answers = b""
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        sending = threading.Thread(target=connection.sendall, args=(request * 1500 + last,))
        sending.start()
        while chunk := connection.recv(65536):
            answers += chunk
        sending.join()
    assert answers.count(b"HTTP/1.1 200 OK") == 1501
    assert b"HTTP/1.1 431" not in answers


@pytest.mark.parametrize("path", ["/predict", "/feedback"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"instances": [[NaN]]}',
        b'{"instances": [[Infinity]]}',
        b'{"instances": [[-Infinity]]}',
        b'{"instances": ["\xff"]}',
        b"[" * 100_000,
        b'{"instances": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b'{"instances": [[1]]} trailing',
    ],
    ids=["empty", "cut", "NaN", "Infinity", "-Infinity", "utf-8", "deep", "deep and closed", "trailing"],
)
def test_malformed_json_is_400(client: httpx.Client, path: str, body: bytes) -> None:
    check_problem(client.post(path, content=body, headers=JSON), 400, "malformed")


@pytest.mark.parametrize("path", ["/predict", "/feedback"])
def test_a_body_over_the_limit_is_413(tight: RunningService, path: str) -> None:
    with tight.client() as client:
        check_problem(client.post(path, content=b" " * 5000, headers=JSON), 413, "too-large")
        check_problem(client.post(path, content=iter([b" " * 3000, b" " * 3000]), headers=JSON), 413, "too-large")


@pytest.mark.parametrize("media_type", ["text/csv", "image/png", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_media_type_that_the_model_does_not_take_is_415(client: httpx.Client, media_type: str) -> None:
    for path in ("/predict", "/feedback"):
        check_problem(client.post(path, content=b"x", headers={"Content-Type": media_type}), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/instances"),
        ({"instances": []}, "/instances"),
        ({"instances": {}}, "/instances"),
        ({"instances": [[1.0] * 63]}, "/instances/0"),
        ({"instances": [[1.0] * 64, ["a"] * 64]}, "/instances/1/0"),
        ({"instances": [[True] * 64]}, "/instances/0/0"),
        ({"instances": [[1.0] * 64], "top_k": 0}, "/top_k"),
        ({"instances": [[1.0] * 64], "top_k": "3"}, "/top_k"),
        ({"instances": [[1.0] * 64], "a/b~c": 1}, "/a~1b~0c"),
        ({"instances": [[1.0] * 64] * 257}, "/instances"),
        ([], ""),
    ],
)
def test_a_wrong_shape_or_type_is_422_with_a_pointer(client: httpx.Client, body: object, pointer: str) -> None:
    answer = client.post("/predict", json=body)
    check_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_full_predict_queue_is_503_and_says_when_to_try_again(tight: RunningService, digits: Digits) -> None:
    def send(_: int) -> httpx.Response:
        with tight.client() as client:
            return client.post("/predict", json={"instances": [digits[0][0]] * 4})

    with tight.client() as client:
        learn(client, digits[:1])
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(send, range(400)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    for answer in refused:
        check_problem(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
    assert any(answer.status_code == 200 for answer in answers)


def test_a_full_feedback_backlog_is_429_and_says_when_to_try_again(tight: RunningService, digits: Digits) -> None:
    with tight.client() as client:
        many = {"feedback": [{"instance": digits[0][0][:64], "label": "1"}] * 8}
        answers = [client.post("/feedback", json=many) for _ in range(60)]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert refused
    for answer in refused:
        check_problem(answer, 429, "backlog")
        assert int(answer.headers["retry-after"]) > 0


def test_a_path_or_method_that_is_not_there_is_a_problem_too(client: httpx.Client) -> None:
    check_problem(client.get("/nothing"), 404, "not-found")
    answer = client.get("/predict")
    check_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"\x00" * 5000,
    ],
)
def test_garbage_on_the_wire_does_no_harm(service: RunningService, client: httpx.Client, garbage: bytes) -> None:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert client.get("/livez").status_code == 200


def test_a_client_that_leaves_in_the_middle_does_no_harm(service: RunningService, client: httpx.Client) -> None:
    address = urlsplit(service.url)
    body = json.dumps({"instances": [[1.0] * 64]}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for sent in (head.encode(), head.encode() + body[:10], head.encode() + body):
        with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
            connection.sendall(sent)
    assert client.get("/readyz").status_code == 200
    assert "Traceback" not in service.log()
