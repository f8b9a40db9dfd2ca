from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.processes.transport import JoiningTransport
from tests.running import DIGITS, RunningService, learn

HEAD, CONTINUE = b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"
BODY = b'{"instances": [[%s]]}' % b",".join([b"1.5"] * 64)
QUESTION = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(BODY)
SECONDS = 2.0  # less than any time-out of the service


class Wire(asyncio.Transport):
    """What was written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.mark.parametrize("body", [b"body", bytearray(b"body"), memoryview(b"body")])
def test_a_head_goes_with_its_body(wire: Wire, body: bytes) -> None:
    joining = JoiningTransport(wire)
    for _ in range(2):
        joining.write(HEAD)
        joining.write(body)
        joining.write(body)
    assert wire.written == [HEAD + b"body", b"body"] * 2


def test_the_head_that_asks_for_the_body_of_a_request_does_not_wait(wire: Wire) -> None:
    JoiningTransport(wire).write(CONTINUE)
    assert wire.written == [CONTINUE]


def test_a_head_without_a_body_goes_when_it_is_let_go(wire: Wire) -> None:
    joining = JoiningTransport(wire)
    joining.write(HEAD)
    assert not wire.written
    joining.flush()
    joining.flush()
    assert wire.written == [HEAD]


def test_a_head_goes_before_the_connection_is_closed(wire: Wire) -> None:
    joining = JoiningTransport(wire)
    joining.write(HEAD)
    joining.close()
    assert wire.written == [HEAD]
    assert joining.is_closing()


def test_all_else_is_the_transports(wire: Wire) -> None:
    wire._extra = {"peername": "x"}
    assert JoiningTransport(wire).get_extra_info("peername") == "x"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    folder: Path = tmp_path_factory.mktemp("joined")
    with RunningService(folder, DIGITS) as service:
        with service.client() as client:
            learn(client, [([1.0] * 64, "a")])
        parts = urlsplit(service.url)
        assert parts.hostname
        assert parts.port
        yield parts.hostname, parts.port


def said(connection: socket.socket, until: bytes) -> bytes:
    """Return what comes until something was said."""
    connection.settimeout(SECONDS)
    heard = b""
    while until not in heard:
        heard += connection.recv(65536)
    return heard


def test_an_answer_without_a_body_comes_at_once(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        for _ in range(3):
            connection.sendall(b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert said(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 405 ")


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(QUESTION + b"Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n")
        assert said(connection, b"\r\n\r\n") == CONTINUE
        connection.sendall(BODY)
        assert said(connection, b"}]}").startswith(b"HTTP/1.1 200 ")


def test_answers_to_requests_that_come_together_come_in_their_order(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(
            b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n" + QUESTION + b"\r\n" + BODY + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        heard = said(connection, b'{"status":"alive"}')
    assert re.findall(rb"HTTP/1\.1 (\d+)", heard) == [b"405", b"200", b"200"]


def test_an_answer_is_one_segment(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        for _ in range(5):
            connection.sendall(QUESTION + b"\r\n" + BODY)
            connection.settimeout(SECONDS)
            assert connection.recv(65536).endswith(b"}]}")
