"""Who may call: over HTTP, with keys and with tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from service.access import Scope
from service.access.keys import add_key, rotate_key
from service.api.access import NEEDED
from service.store.embedded import DataDirectory, EmbeddedFeedbackLog
from tests.api.test_problems import check_problem
from tests.running import DIGITS, RunningService, everlearn, learn, wait_for

NOBODY = "everlearn_nobody-has-this-key"
INSTANCE = [0.0] * 64


class Keyed(RunningService):
    """A service whose callers have keys, by name."""

    def __init__(self, folder: Path, config: str = DIGITS, *flags: str, **holders: list[Scope]) -> None:
        super().__init__(folder, config + '[access]\nmode = "keys"\n', *flags)
        DataDirectory(self.data).create()
        self.file = self.data / "keys.json"
        self.keys = {name: add_key(self.file, name, scopes) for name, scopes in holders.items()}

    def called(self, name: str) -> httpx.Client:
        """Return a client with this name's key."""
        return self.client(headers={"Authorization": f"Bearer {self.keys[name]}"})


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    holders: dict[str, list[Scope]] = {
        "reader": ["predict"],
        "teacher": ["feedback"],
        "both": ["predict", "feedback"],
        "chief": ["admin"],
    }
    with Keyed(tmp_path_factory.mktemp("keyed"), **holders) as running:
        yield running


def documented(client: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    """Return every route of the OpenAPI document with its operation."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path, each) for path, operations in paths.items() for method, each in operations.items()]


def call(client: httpx.Client, method: str, path: str) -> httpx.Response:
    filled = path.replace("{name}", "zebra")
    for name in ("seq", "version", "before", "after"):
        filled = filled.replace(f"{{{name}}}", "0")
    return client.request(method, filled, json={} if method in {"POST", "PATCH"} else None)


def test_every_route_says_in_one_place_what_it_needs(keyed: Keyed) -> None:
    with keyed.client() as client:
        for method, path, operation in documented(client):
            assert (method, path) in NEEDED
            needed = NEEDED[method, path]
            assert operation.get("security", []) == ([{"bearer": [needed]}, {"key": [needed]}] if needed else [])
            assert {"401", "403"} <= operation["responses"].keys() or not needed


def test_without_a_key_or_with_a_wrong_one_nothing_but_health_and_documents_answers(keyed: Keyed) -> None:
    with keyed.client() as client, keyed.client(headers={"X-API-Key": NOBODY}) as stranger:
        routes = documented(client)
        assert len(routes) > 12
        for method, path, _ in routes:
            answer, wrong = call(client, method, path), call(stranger, method, path)
            if NEEDED[method, path] is None:
                assert answer.status_code == wrong.status_code == 200
                continue
            check_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == 'Bearer realm="everlearn"'
            check_problem(wrong, 401, "unauthenticated")
            assert wrong.headers["www-authenticate"] == 'Bearer realm="everlearn", error="invalid_token"'
        for path in ("/docs", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_a_key_opens_the_routes_of_its_scopes_and_no_others(keyed: Keyed) -> None:
    scopes = {"reader": {"predict"}, "teacher": {"feedback"}, "both": {"predict", "feedback"}, "chief": {"admin"}}
    for name, may in scopes.items():
        with keyed.called(name) as client:
            for method, path, _ in documented(client):
                answer = call(client, method, path)
                needed = NEEDED[method, path]
                if needed is None or needed in may:
                    assert answer.status_code not in {401, 403}, (name, path)
                else:
                    check_problem(answer, 403, "forbidden")
                    assert f'error="insufficient_scope", scope="{needed}"' in answer.headers["www-authenticate"]


def test_a_body_is_not_read_before_its_sender_is_known(keyed: Keyed) -> None:
    with keyed.client() as client:
        check_problem(client.post("/feedback", content=b"not json"), 401, "unauthenticated")
    with keyed.called("reader") as client:
        check_problem(client.post("/feedback", content=b"not json"), 403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Basic {key}")],
        [("Authorization", "{key}")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer {key} {key}")],
        [("Authorization", f"Bearer {NOBODY}, Bearer {{key}}")],
        [("Authorization", "Bearer {key}"), ("Authorization", f"Bearer {NOBODY}")],
        [("Authorization", "Bearer {key}"), ("X-API-Key", NOBODY)],
        [("X-API-Key", "{key}"), ("X-API-Key", "{key}")],
        [("X-API-Key", "Bearer {key}")],
        [("Cookie", "X-API-Key={key}")],
        [("X-API-Key", "")],
        [("X-API-Key", "\xff\xfe")],
    ],
    ids=repr,
)
def test_a_credential_comes_once_and_in_its_place(keyed: Keyed, headers: list[tuple[str, str]]) -> None:
    key = keyed.keys["reader"]
    sent = [(name.encode(), value.format(key=key).encode("latin-1")) for name, value in headers]
    with keyed.client() as client:
        check_problem(client.get("/model", headers=sent), 401, "unauthenticated")
        assert client.get(f"/model?x-api-key={key}").status_code == 401


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {}"])
def test_a_key_comes_as_bearer_or_as_a_header_of_its_own(keyed: Keyed, form: str) -> None:
    with keyed.client() as client:
        key = keyed.keys["reader"]
        assert client.get("/model", headers={"Authorization": form.format(key)}).status_code == 200
        assert client.get("/model", headers={"x-api-key": key}).status_code == 200


def test_keys_are_rotated_and_made_while_the_service_runs(tmp_path: Path) -> None:
    with Keyed(tmp_path, shop=["predict"]) as service, service.client() as client:

        def status(key: str) -> int:
            return client.get("/model", headers={"X-API-Key": key}).status_code

        new = rotate_key(service.file, "shop", timedelta(hours=1))
        assert [status(new), status(service.keys["shop"])] == [200, 200]
        newest = rotate_key(service.file, "shop", timedelta(0))
        assert [status(newest), status(new), status(service.keys["shop"])] == [200, 401, 401]
        service.file.write_text("{")
        assert status(newest) == 200
        assert "access.unreadable: keys.json" in service.log()
        assert service.stop() == 0
        assert service.launch().wait(60) == 78
        assert "keys.json can't be read: the file: Invalid JSON" in service.log().splitlines()[-1]


def test_a_service_without_keys_starts_and_says_how_to_make_one(tmp_path: Path) -> None:
    with Keyed(tmp_path) as service, service.client() as client:
        assert "access.no_keys: nobody may call yet; `everlearn keys add NAME" in service.log()
        assert client.get("/readyz").status_code == 200
        done = everlearn(
            "keys", "add", "shop", "--scope", "predict", "--config", str(service.config), "--data", str(service.data)
        )
        assert done.returncode == 0, done.stderr
        assert client.get("/model", headers={"X-API-Key": done.stdout.strip()}).status_code == 200


def test_tokens_are_taken_in_the_place_of_keys(tmp_path: Path) -> None:
    mine = ed25519.Ed25519PrivateKey.generate()
    config = '[access]\nmode = "jwt"\nissuer = "https://login.example"\naudience = "everlearn"\njwks = "public.json"\n'
    claims = {"iss": "https://login.example", "aud": "everlearn", "exp": time.time() + 600, "sub": "shop", "scope": "predict"}
    service = RunningService(tmp_path, DIGITS + config)
    DataDirectory(service.data).create()
    assert service.launch().wait(60) == 78
    assert f"{service.data / 'public.json'} can't be read: No such file" in service.log().splitlines()[-1]
    public = OKPAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    (service.data / "public.json").write_text(json.dumps({"keys": [public]}))
    with service, service.client() as client:
        token = jwt.encode(claims, mine, "EdDSA")
        assert client.get("/model", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        check_problem(client.post("/feedback", headers={"Authorization": f"Bearer {token}"}), 403, "forbidden")
        late = jwt.encode({**claims, "exp": 1}, mine, "EdDSA")
        check_problem(client.get("/model", headers={"Authorization": f"Bearer {late}"}), 401, "unauthenticated")


def test_a_service_that_others_can_reach_must_say_who_may_call(tmp_path: Path) -> None:
    service = RunningService(tmp_path, DIGITS, "--host", "0.0.0.0")
    assert service.launch().wait(60) == 78
    (line,) = service.log().splitlines()
    assert line.startswith("everlearn: on 0.0.0.0 everybody who reaches this machine could teach the model")
    said = DIGITS + "[access]\nanonymous = true\n"
    with RunningService(tmp_path, said, "--host", "0.0.0.0") as service, service.client() as client:
        assert client.get("/model").status_code == 200


def test_a_token_service_must_say_whose_tokens_it_takes(tmp_path: Path) -> None:
    service = RunningService(tmp_path, DIGITS + '[access]\nmode = "jwt"\nissuer = "x"\n')
    assert service.launch().wait(60) == 78
    assert service.log().splitlines()[-1] == 'everlearn: access.audience: missing; access.mode = "jwt" needs it'


def test_a_source_that_teaches_too_fast_is_told_when_to_go_on_and_holds_up_nobody(tmp_path: Path) -> None:
    limits = "[limits]\nfeedback_rate = 2\nfeedback_burst = 10\n"
    both: list[Scope] = ["feedback", "predict"]
    with Keyed(tmp_path, DIGITS + limits, fast=both, slow=both) as service:
        ten = {"feedback": [{"instance": INSTANCE, "label": "a"}] * 10}
        with service.called("fast") as fast, service.called("slow") as slow:
            assert fast.post("/feedback", json=ten).status_code == 202
            refused = fast.post("/feedback", json=ten)
            check_problem(refused, 429, "too-fast")
            assert 1 <= int(refused.headers["retry-after"]) <= 5
            assert slow.post("/feedback", json=ten).status_code == 202
            assert fast.get("/model").status_code == 200
            time.sleep(int(refused.headers["retry-after"]))
            wait_for(lambda: fast.post("/feedback", json=ten).status_code == 202, "the bucket to fill")


def test_the_log_knows_who_taught_what(tmp_path: Path) -> None:
    both: list[Scope] = ["feedback", "predict"]
    with Keyed(tmp_path, asks=both, labels=both) as service:
        with service.called("asks") as asks, service.called("labels") as labels:
            learn(asks, [(INSTANCE, "a")])
            prediction = asks.post("/predict", json={"instances": [INSTANCE]}).json()["predictions"][0]
            labelled = {"prediction_id": prediction["id"], "label": "b"}
            assert labels.post("/feedback", json={"feedback": [labelled]}).status_code == 202
            assert labels.post("/classes", json={"name": "c"}).status_code == 201
        service.stop()
    with closing(EmbeddedFeedbackLog(DataDirectory(service.data).open())) as log:
        assert [(entry.kind, entry.source) for entry in log.read(0, 10)] == [
            ("feedback", "asks"),
            ("feedback", "labels"),  # of somebody else's prediction: it counts as the sender's
            ("class", "labels"),
        ]
