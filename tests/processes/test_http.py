"""Clients that are slow on purpose, or by the look of it, against a service whose patience is short."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.running import DIGITS, RunningService, learn

SECONDS = 2.0
IMPATIENT = DIGITS + f"[limits]\nhead_seconds = {SECONDS}\nbody_seconds = {SECONDS}\n"
BODY = json.dumps({"instances": [[1.0] * 64]}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("impatient"), IMPATIENT) as running:
        with running.client() as client:
            learn(client, [([1.0] * 64, "a")])
        yield running


def connected(service: RunningService) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def until_closed(connection: socket.socket, trickle: bytes = b"", every: float = 0.1) -> tuple[bytes, float]:
    """Send one byte after another until the service closes the connection; return what it said, and after how long."""
    began, said = time.monotonic(), b""
    connection.settimeout(every)
    left = list(trickle)
    while time.monotonic() - began < 30:
        with suppress(ConnectionError, TimeoutError):
            if left:
                connection.sendall(bytes([left.pop(0)]))
            chunk = connection.recv(65536)
            if not chunk:
                return said, time.monotonic() - began
            said += chunk
    raise AssertionError(f"the connection was kept for 30 s: {said!r}")


def check_too_slow(said: bytes) -> None:
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 "), said
    assert b"connection: close" in head.lower()
    assert json.loads(body)["type"] == "urn:everlearn:problem:too-slow"


@pytest.mark.parametrize(
    "trickle",
    [b"", b"GET /livez HTTP/1.1\r\n" + b"X-A: b\r\n" * 1000, b"\r\n" * 1000, b"G" * 1000],
    ids=["nothing", "headers", "blank lines", "a method"],
)
def test_a_head_that_does_not_end_in_time_is_408(impatient: RunningService, trickle: bytes) -> None:
    with connected(impatient) as connection:
        said, seconds = until_closed(connection, trickle)
        if trickle != b"G" * 1000:  # which is no method, and known to be none before its time is over
            check_too_slow(said)
        assert seconds < 20


def test_a_head_that_trickles_after_an_earlier_request_is_408_too(impatient: RunningService) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        said, _ = until_closed(connection, b"\r\n" + b"GET /livez HTTP/1.1\r\n" + b"X-A: b\r\n" * 1000)
    assert said.startswith(b"HTTP/1.1 200 ")
    check_too_slow(said[said.rindex(b"HTTP/1.1 408") :])


@pytest.mark.parametrize("path", [b"/predict", b"/nothing", b"/feedback"])
def test_a_body_that_does_not_end_in_time_is_given_up(impatient: RunningService, path: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(HEAD.replace(b"/predict", path))
        said, seconds = until_closed(connection, BODY, every=0.3)
        if path == b"/nothing":  # answered before its body was there; the rest is not waited for either
            assert said.startswith(b"HTTP/1.1 404 ")
        else:
            check_too_slow(said)
        assert seconds < 20


def test_a_chunked_body_has_no_more_time_than_another(impatient: RunningService) -> None:
    with connected(impatient) as connection:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head)
        said, _ = until_closed(connection, b"1\r\n \r\n" * 1000)
    check_too_slow(said)


def test_whoever_keeps_within_the_time_is_served_however_the_pieces_come(impatient: RunningService) -> None:
    with connected(impatient) as connection:
        for piece in (HEAD[:10], HEAD[10:], BODY[:20], BODY[20:]):
            connection.sendall(piece)
            time.sleep(SECONDS / 10)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_takes_long_is_no_slow_request(impatient: RunningService) -> None:
    with impatient.client() as client:
        began = time.monotonic()
        feedback = {"feedback": [{"instance": [1.0] * 64, "label": "a"}]}
        for _ in range(3):
            answer = client.post("/feedback", json=feedback, headers={"Prefer": "wait=30"})
            assert answer.status_code == 200
        compared = client.get("/versions/0/compare/1", params={"items": 5000})
        assert compared.status_code in {200, 410}
        time.sleep(max(0.0, SECONDS * 1.5 - (time.monotonic() - began)))
        assert client.get("/livez").status_code == 200


def test_three_hundred_slow_clients_hold_up_nobody(impatient: RunningService) -> None:
    slow = [connected(impatient) for _ in range(300)]
    try:
        for connection in slow:
            connection.sendall(HEAD + BODY[:5])
        with impatient.client() as client:
            for _ in range(20):
                assert client.post("/predict", json={"instances": [[1.0] * 64]}).status_code == 200
        for connection in slow:
            check_too_slow(until_closed(connection)[0])
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["websocket", "h2c", "CONNECT", "HTTP/2"],
)
def test_another_protocol_is_not_spoken_and_keeps_nothing_open(impatient: RunningService, head: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(head)
        said, _ = until_closed(connection, b"\x00" * 300)
    assert b"101" not in said[:20]
    assert impatient.log().count("Traceback") == 0


@pytest.mark.parametrize(
    "head",
    [
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A\xff: b\r\n\r\n",
        b"GET /livez HTTP/1.1\nHost: x\n\n",
    ],
)
def test_a_head_that_two_servers_could_read_in_two_ways_is_400(impatient: RunningService, head: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(head + b"hello")
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"urn:everlearn:problem:malformed" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_headers_by_the_thousand_do_no_harm(impatient: RunningService) -> None:
    with impatient.client() as client:
        assert client.get("/livez", headers=[("X-Many", "x")] * 5000).status_code == 200
        for name in ("X-Request-ID", "Prefer", "Idempotency-Key", "If-None-Match", "Accept", "Content-Type"):
            for value in (b"\xff" * 1000, b"," * 10_000, b"x" * 100_000, b""):
                answer = client.post("/predict", content=BODY, headers={name: value})
                assert answer.status_code in {200, 415}, (name, answer.text)
                assert len(answer.headers["x-request-id"]) <= 128


def test_a_folder_of_a_data_directory_is_no_place_for_requests(impatient: RunningService, tmp_path: Path) -> None:
    before = sorted(path for path in impatient.folder.rglob("*") if path.is_dir())
    with impatient.client() as client:
        for name in (
            "../../trespasser",
            "..%2f..%2ftrespasser",
            "/etc/passwd",
            "trespasser\x00",
            "C:\\trespasser",
            "a/../../../../tmp/trespasser",
            "~/trespasser",
        ):
            learned = client.post("/classes", json={"name": name})
            assert learned.status_code in {201, 422}
            for path in ("classes", "versions", "feedback"):
                assert client.get(f"/{path}/{quote(name, safe='/.%~')}").status_code in {200, 404, 422}
            keyed = {"instance": [0.0] * 64, "label": "a", "key": name, "prediction_id": None}
            assert client.post("/feedback", json={"feedback": [keyed]}).status_code == 202
    assert sorted(path for path in impatient.folder.rglob("*") if path.is_dir()) == before
    assert not list(impatient.folder.parent.rglob("*trespasser*"))
    assert not Path("/tmp/trespasser").exists()
