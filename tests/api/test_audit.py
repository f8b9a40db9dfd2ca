"""Admin acts and their record, through the same dependency and middleware as the service's, around a route of our own."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response

from service.access import AuditLog
from service.access.keys import Keys, add_key
from service.api import problems
from service.api.access import Access, note
from service.api.audit import Audited
from service.api.edge import Edge
from tests.running import everlearn


class Acts:
    """An app with an admin route, and what it left."""

    def __init__(self, folder: Path) -> None:
        self.audit = AuditLog(folder / "audit.jsonl")
        self.key = add_key(folder / "keys.json", "chief", ["admin"])
        self.other = add_key(folder / "keys.json", "reader", ["predict"])
        self.seen: list[list[dict[str, Any]]] = []
        self.app = FastAPI(dependencies=[Depends(Access(Keys(folder / "keys.json"), self.audit))])
        problems.install(self.app)
        self.app.add_middleware(Edge, leaving=threading.Event(), access_log="none")
        self.app.add_middleware(Audited, audit=self.audit)

        @self.app.post("/rollback")
        async def rollback(request: Request) -> Response:
            self.seen.append(self.records())
            if (await request.body()) == b"fail":
                raise RuntimeError("what the client sent: fail")
            note(request, to=3)
            return Response(status_code=201)

    def records(self) -> list[dict[str, Any]]:
        return list(self.audit.read())

    def post(self, content: bytes = b"{}", **headers: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post("/rollback?secret=hunter2", content=content, headers=headers)

        return asyncio.run(send())


@pytest.fixture
def acts(tmp_path: Path) -> Acts:
    return Acts(tmp_path)


def test_an_act_is_on_record_before_it_begins_and_with_its_result_before_it_is_answered(acts: Acts) -> None:
    answer = acts.post(b"secret payload", **{"X-API-Key": acts.key, "X-Request-ID": "mine-1"})
    assert answer.status_code == 201
    (before,) = acts.seen
    assert [record["event"] for record in before] == ["asked"]
    asked, answered = acts.records()
    expected = {"request_id": "mine-1", "source": "chief", "client": "127.0.0.1", "act": "POST /rollback"}
    assert asked.items() >= {**expected, "event": "asked"}.items()
    assert answered.items() >= {**expected, "event": "answered", "status": 201, "to": 3}.items()


def test_an_act_that_fails_is_on_record_with_its_failure(acts: Acts) -> None:
    assert acts.post(b"fail", **{"X-API-Key": acts.key}).status_code == 500
    assert acts.records()[-1]["status"] == 500


def test_what_is_refused_is_no_act(acts: Acts) -> None:
    assert acts.post().status_code == 401
    assert acts.post(**{"X-API-Key": acts.other}).status_code == 403
    assert acts.records() == []


def test_nothing_is_done_that_can_not_be_recorded(acts: Acts, tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    answer = acts.post(**{"X-API-Key": acts.key})
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("store-unavailable")
    assert acts.seen == []


def test_payloads_and_secrets_are_never_on_record(acts: Acts, tmp_path: Path) -> None:
    acts.post(b"secret payload", Authorization=f"Bearer {acts.key}", Cookie="session=abc")
    written = (tmp_path / "audit.jsonl").read_text()
    assert written
    for secret in (acts.key, acts.key.removeprefix("everlearn_"), "hunter2", "payload", "abc"):
        assert secret not in written


def test_the_command_line_shows_what_is_on_record(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    made = everlearn("keys", "add", "chief", "--scope", "admin", *data)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("everlearn_")
    assert 'keys count once access.mode = "keys"' in made.stderr
    listed = everlearn("keys", "list", *data, COLUMNS="160").stdout
    assert "chief" in listed
    assert "admin" in listed
    assert made.stdout.strip() not in listed
    rotated = everlearn("keys", "rotate", "chief", "--hours", "1", *data)
    assert rotated.stdout.startswith("everlearn_")
    assert rotated.stdout != made.stdout
    assert everlearn("keys", "list", *data, COLUMNS="160").stdout.count("chief") == 2
    assert everlearn("keys", "remove", "chief", *data).returncode == 0
    gone = everlearn("keys", "remove", "chief", *data)
    assert gone.returncode == 78
    assert gone.stderr.strip() == "everlearn: there is no key of the name 'chief'"
    shown = everlearn("audit", *data, COLUMNS="200").stdout
    for act in ("keys add chief", "keys rotate chief", "keys remove chief"):
        assert act in shown
    assert made.stdout.strip() not in shown
