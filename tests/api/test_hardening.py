"""What an attacker puts into a body: sizes, depths, numbers, letters; and what the service lets out about it.

Where something would take the service long, the client's own time-out fails the test.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.test_problems import check_problem
from tests.models.test_containers import JPEG, encoded, png, scans
from tests.running import PICTURES, RunningService, learn

JSON = {"Content-Type": "application/json"}
ZEROS = [0.0] * 64


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("pictures"), PICTURES) as running:
        with running.client() as client:
            learn(client, [({"b64": base64.b64encode(JPEG).decode()}, "a")])
        yield running


def labelled(label: object, **more: object) -> dict[str, Any]:
    return {"feedback": [{"instance": ZEROS, "label": label, **more}]}


@pytest.mark.parametrize("number", ["1e39", "-1e39", "3.4028236e38", "1e400", "-1e400", "9" * 400])
def test_a_number_beyond_float32_is_refused_and_never_infinite(client: httpx.Client, number: str) -> None:
    vector = "[" + ",".join(["0"] * 63 + [number]) + "]"
    check_problem(client.post("/predict", content=f'{{"instances": [{vector}]}}', headers=JSON), 422, "invalid")
    feedback = f'{{"feedback": [{{"instance": {vector}, "label": "a"}}]}}'
    answer = client.post("/feedback", content=feedback, headers=JSON)
    check_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["pointer"].startswith("/feedback/0/instance")


@pytest.mark.parametrize("number", [3.4028234663852886e38, -3.4e38, 5e-324, -0.0])
def test_a_number_that_float32_holds_is_taken(client: httpx.Client, number: float) -> None:
    learn(client, [(ZEROS, "a")])
    answer = client.post("/predict", json={"instances": [[number] * 64]})
    assert answer.status_code == 200
    assert all(0 <= score <= 1 for score in answer.json()["predictions"][0]["scores"].values())


@pytest.mark.parametrize(
    "body",
    [
        b'{"feedback": ' + b"[" * 2_000_000,
        b'{"feedback": [{"instance": [0], "label": ' + b'{"a":' * 500_000 + b"0" + b"}" * 500_000 + b"}]}",
        b'{"feedback": [{"instance": [' + b"9" * 5_000_000 + b'], "label": "a"}]}',
        b'{"feedback": [{"instance": [0], "label": "\\ud800"}]}',
        b'{"feedback": [{"instance": [0], "label": "\xed\xa0\x80"}]}',
        b'\xef\xbb\xbf{"feedback": []}',
        '{"feedback": []}'.encode("utf-16"),
        b'{"feedback": [] , }',
        b"{'feedback': []}",
        b'{"feedback": []}\x00',
        b'{"feedback": [NaN]}',
        b'{"feedback": [1e]}',
        b"\x1f\x8b" + b"\x00" * 1000,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_json_that_is_none_is_400(client: httpx.Client, body: bytes) -> None:
    check_problem(client.post("/feedback", content=body, headers=JSON), 400, "malformed")


def test_a_million_faults_are_counted_and_not_listed(client: httpx.Client) -> None:
    wide = "{" + ",".join(f'"k{number}":0' for number in range(1_000_000)) + "}"
    for path, body in (("/predict", wide), ("/feedback", f'{{"feedback": [{wide}]}}'), ("/classes", wide)):
        answer = client.post(path, content=body, headers=JSON)
        check_problem(answer, 422, "invalid")
        assert "faults" in answer.json()["detail"]
        assert len(answer.content) < 1000
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"feedback": [{"instance": ZEROS, "label": "a" * 15_000_000}]},
        {"feedback": [{"instance": ZEROS, "label": [0] * 1_000_000}]},
        {"feedback": [{"instance": ["a"] * 1_000_000, "label": "a"}]},
        {"feedback": [0] * 1_000_000},
        {"feedback": [{"instance": ZEROS, "label": "a", "key": "k" * 1_000_000}]},
        {"feedback": [{"prediction_id": "p" * 1_000_000, "label": "a"}]},
        {"feedback": [{"instance": ZEROS, "label": "a", "weight": 1e300}]},
        {"feedback": [{"instance": ZEROS, "label": 10**30}]},
    ],
    ids=["label", "labels", "instance", "items", "key", "id", "weight", "integer"],
)
def test_what_is_too_much_is_422_and_a_short_answer(client: httpx.Client, body: object) -> None:
    answer = client.post("/feedback", json=body)
    check_problem(answer, 422, "invalid")
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("bad", ["a\x00", "a\u202eb", "a\u200b", "\ufeffa", "a\u2028", "a\x85", "a\u00ad"], ids=ascii)
def test_a_label_or_class_that_can_not_be_seen_as_it_is_is_refused(client: httpx.Client, bad: str) -> None:
    answer = client.post("/feedback", json=labelled(bad))
    check_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["pointer"] == "/feedback/0/label"
    answer = client.post("/classes", json={"name": bad})
    check_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["pointer"] == "/name"
    assert "\u202e" not in answer.text


def test_one_name_is_one_class_however_it_was_typed(client: httpx.Client) -> None:
    learn(client, [(ZEROS, "caf\u00e9"), (ZEROS, "cafe\u0301")])
    assert [name for name in client.get("/model").json()["labels"] if name.startswith("caf")] == ["caf\u00e9"]
    assert client.get("/classes/cafe%CC%81").json()["name"] == "caf\u00e9"
    check_problem(client.post("/classes", json={"name": "cafe\u0301"}), 409, "class-known")


def test_keys_are_compared_as_they_are(client: httpx.Client) -> None:
    keys = ["k\u00e9y", "ke\u0301y", "key\u0000", "key\u0000\u0000", "' OR 1=1 --", "../../key", "\U0001f511"]
    seqs = [client.post("/feedback", json=labelled("a", key=key)).json()["log_seq"] for key in keys]
    again = [client.post("/feedback", json=labelled("a", key=key)).json()["log_seq"] for key in keys]
    assert len(set(seqs)) == len(keys)
    assert again == seqs


@pytest.mark.parametrize(
    "payload",
    [
        png(100_000, 100_000),
        png(30_000, 30_000, depth=1, pixels=b"\0" * 30_000 * 3751),
        scans(300),
        JPEG[:200],
        encoded("PNG")[:-30],
        encoded("WEBP")[:-30],
        encoded("GIF"),
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"%PDF-1.4",
        b"",
    ],
    ids=["wide", "bits", "scans", "cut jpeg", "cut png", "cut webp", "gif", "svg", "pdf", "nothing"],
)
def test_a_picture_that_is_none_is_422_however_it_comes(pictures: RunningService, payload: bytes) -> None:
    with pictures.client() as client:
        for media_type in ("image/png", "image/jpeg", "image/webp"):
            check_problem(client.post("/predict", content=payload, headers={"Content-Type": media_type}), 422, "invalid")
        check_problem(client.post("/predict", files={"a": ("../../a.png", payload, "image/png")}), 422, "invalid")
        body = {"feedback": [{"instance": {"b64": base64.b64encode(payload).decode()}, "label": "a"}]}
        answer = client.post("/feedback", json=body)
        check_problem(answer, 422, "invalid")
        assert answer.json()["errors"][0]["pointer"].startswith("/feedback/0/instance")
        assert client.get("/readyz").status_code == 200


def test_a_polyglot_is_its_picture_and_nothing_else(pictures: RunningService) -> None:
    with pictures.client() as client:
        polyglot = JPEG + b"PK\x03\x04<script>alert(1)</script>"
        answers = [
            client.post("/predict", content=payload, headers={"Content-Type": "image/jpeg"}) for payload in (JPEG, polyglot)
        ]
        scores = [answer.json()["predictions"][0]["scores"] for answer in answers]
        assert scores[0] == scores[1]
        lie = client.post("/predict", content=polyglot, headers={"Content-Type": "image/png"})
        check_problem(lie, 422, "invalid")


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\n" + b"A: " + b"b" * 15_000_000,
        b"--x\r\n" + b"A: b\r\n" * 1_000_000 + b"\r\n\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n" * 100_000 + b"--x--\r\n",
        b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\nContent-Type: image/png\r\n\r\n\r\n" * 10_000,
        b"\r\n" * 1_000_000,
        b"",
    ],
    ids=["long header", "headers", "fields", "files", "blank", "nothing"],
)
def test_a_multipart_body_that_is_none_is_refused(pictures: RunningService, body: bytes) -> None:
    with pictures.client() as client:
        for boundary in ("x", "x" * 1000, ""):
            answer = client.post(
                "/predict", content=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
            )
            assert answer.status_code in {400, 422}, answer.text
            assert answer.headers["content-type"] == "application/problem+json"


SECRETS = ("hunter2-in-a-body", "hunter2-in-a-header", "hunter2-in-a-path", "hunter2-in-a-key")


def test_nothing_that_a_client_sends_gets_into_the_log_and_no_trace_or_path_gets_out(service: RunningService) -> None:
    body, header, path, key = SECRETS
    headers = {
        "Authorization": f"Bearer {header}",
        "X-API-Key": header,
        "Cookie": header,
        "X-Request-ID": f"{header} {header}",  # a sane one is logged beside a failure: it is there to be
        "Idempotency-Key": key,
        "Prefer": f"wait={header}",
        "User-Agent": header,
    }
    bodies: list[Any] = [{body: body}, {"instances": [[body]]}, labelled(body, key=key), labelled({body: 1}), [body], body]
    answers = []
    with service.client(headers=headers) as client:
        for route in ("/predict", "/feedback", "/explain", "/classes"):
            answers += [client.post(route, json=sent, params={"top_k": path}) for sent in bodies]
            answers.append(client.post(route, content=f'{{"a": {body}'.encode(), headers=JSON))
            answers.append(client.post(route, content=body, headers={"Content-Type": "text/plain"}))
            answers.append(client.request("DELETE", route))
        for route in ("/classes", "/versions", "/feedback", "/nothing", "/versions/0/compare"):
            answers.append(client.get(f"/{path}{route}"))
            answers.append(client.get(f"{route}/{path}"))
        answers.append(client.patch(f"/classes/{path}", json={"description": body}))
    log = service.log()
    for secret in SECRETS:
        assert secret not in log
    assert "Traceback" not in log
    for answer in answers:
        assert answer.status_code < 500 or answer.status_code == 501
        for inside in (
            "Traceback",
            ".py",
            str(service.folder),
            "site-packages",
            "sqlite",
            "everlearn-data",
            "hunter2-in-a-header",
        ):
            assert inside not in answer.text
        assert json.loads(answer.text)
