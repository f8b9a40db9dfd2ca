"""docker/envoy.yaml, run by Envoy before real services."""

from __future__ import annotations

import ipaddress
import os
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import numpy as np
import pytest
import tritonclient.http as triton
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.gateway.backend import Backend
from tests.gateway.load import Load
from tests.gateway.running import FILE, Gateway
from tests.running import DIGITS, RunningService, learn, replicas, wait_for

INSTANCE = [1.0] * 64
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PREDICT = {"instances": [INSTANCE]}
SERVER = '[server]\ndrain_seconds = 4\naccess_log = "all"\nlog_format = "json"\n'


@dataclass(frozen=True)
class House:
    """Two services on one data directory, behind the gateway."""

    services: tuple[RunningService, RunningService]
    gateway: Gateway

    @property
    def ports(self) -> list[int]:
        return ports(self.services)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("replicas")
    with replicas(folder, f"{DIGITS}{SERVER}") as services, Gateway(folder, ports(services)) as gateway:
        with gateway.client() as client:
            learn(client, [(INSTANCE, "one")])
        yield House(services, gateway)


def ports(services: Sequence[RunningService]) -> list[int]:
    return [httpx.URL(service.url).port or 0 for service in services]


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[httpx.Client]:
    with house.gateway.client() as client:
        yield client


def test_predictions_go_to_every_replica_and_labels_to_one_store(house: House, client: httpx.Client) -> None:
    answers = [client.post("/predict", json=PREDICT).json() for _ in range(20)]
    asked = [service.log().count('"route": "/predict"') for service in house.services]
    assert min(asked) > 0
    feedback = [{"prediction_id": answer["predictions"][0]["id"], "label": "one"} for answer in answers]
    answer = client.post("/feedback", json={"feedback": feedback}, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200, answer.text


def test_a_request_id_is_kept_and_one_is_made_where_there_is_none(client: httpx.Client) -> None:
    for mine in ("mine-4711", "0b0d49a6-6c1e-4a0e-9f53-3d9e8d0f3a55"):
        assert client.post("/predict", json=PREDICT, headers={"X-Request-ID": mine}).headers["X-Request-ID"] == mine
    assert len(client.post("/predict", json=PREDICT).headers["X-Request-ID"]) == 36


def test_clients_of_the_open_inference_protocol_reach_it(house: House) -> None:
    with closing(triton.InferenceServerClient(f"127.0.0.1:{house.gateway.port}")) as server:
        assert server.is_server_live()
        assert server.is_model_ready("everlearn")
        (described,) = server.get_model_metadata("everlearn")["inputs"]
        asked = triton.InferInput(described["name"], [1, 64], described["datatype"])
        asked.set_data_from_numpy(np.ones((1, 64)))
        assert server.infer("everlearn", [asked]).get_response()["model_name"] == "everlearn"


def test_what_is_not_for_the_world_is_not_there(client: httpx.Client) -> None:
    for path in ("/metrics", "/rollback", "/forget", "/acts/1", "/audit", "/stats", "/config_dump"):
        answer = client.post(path, json={})
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:everlearn:problem:not-found")
    assert "admin" not in yaml.safe_load(FILE.read_text())
    assert client.get("/docs").status_code == 200


def test_a_body_over_the_limit_is_refused(client: httpx.Client) -> None:
    answer = client.post("/predict", content=b"x" * (16 * 2**20 + 1), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:everlearn:problem:too-large")


def test_a_client_that_asks_too_much_is_told_to_wait_and_others_are_served(house: House, tmp_path: Path) -> None:
    slow = {
        "max_tokens: 4000, tokens_per_fill: 2000, fill_interval: 1s": "max_tokens: 30, tokens_per_fill: 1, fill_interval: 3600s"
    }
    with Gateway(tmp_path, house.ports, changes=slow) as gateway, gateway.client() as client:
        answers = [client.get("/livez") for _ in range(40)]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert answers[-1].json()["type"] == "urn:everlearn:problem:too-fast"
        assert (answers[-1].headers["Retry-After"], answers[-1].headers["Content-Type"]) == ("1", "application/problem+json")
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=gateway.url, transport=elsewhere) as other:
            assert other.get("/livez").status_code == 200


def test_what_broke_off_is_sent_again_only_where_that_is_safe(tmp_path: Path) -> None:
    broken, well = Backend(), Backend(answers_after=0.0)
    unwatched = {"consecutive_local_origin_failure: 2": "consecutive_local_origin_failure: 1000"}
    with Gateway(tmp_path, [broken.server_port, well.server_port], changes=unwatched) as gateway, gateway.client() as client:

        def ask(path: str, **headers: str) -> list[int]:
            return [client.post(path, json={}, headers=headers).status_code for _ in range(12)]

        assert set(ask("/predict")) == {200}
        assert set(ask("/feedback", **{"Idempotency-Key": "mine"})) == {200}
        before = broken.asked["/feedback"] + well.asked["/feedback"]
        answers = ask("/feedback")
        assert set(answers) == {200, 503}  # the client is told, and asks again with the key in its body
        assert broken.asked["/feedback"] + well.asked["/feedback"] == before + len(answers)
    for backend in (broken, well):
        backend.shutdown()
        backend.server_close()


def test_a_trace_is_passed_on_and_who_waits_for_a_version_is_not_cut_off(tmp_path: Path) -> None:
    slow = Backend(answers_after=2.0)
    shorter = {"timeout: 30s": "timeout: 1s"}  # of /predict
    headers = {"Prefer": "wait=30", "traceparent": TRACEPARENT, "tracestate": "a=1", "X-Envoy-Upstream-Rq-Timeout-Ms": "1"}
    with Gateway(tmp_path, [slow.server_port], changes=shorter) as gateway, gateway.client() as client:
        assert client.post("/feedback", json={}, headers=headers).status_code == 200
        late = client.post("/predict", json={})
        assert (late.status_code, late.json()["type"]) == (504, "urn:everlearn:problem:overloaded")
    received = {name.lower(): value for name, value in slow.headers[0].items()}
    assert (received["traceparent"], received["tracestate"], received["prefer"]) == (TRACEPARENT, "a=1", "wait=30")
    slow.shutdown()
    slow.server_close()


@pytest.mark.long
def test_feedback_may_wait_for_as_long_as_the_service_lets_it(tmp_path: Path) -> None:
    slow = Backend(answers_after=31.0)
    with Gateway(tmp_path, [slow.server_port]) as gateway, gateway.client() as client:
        for headers in ({}, {"Idempotency-Key": "mine"}):
            assert client.post("/feedback", json={}, headers={"Prefer": "wait=30", **headers}).status_code == 200
    slow.shutdown()
    slow.server_close()


def test_without_a_replica_that_is_ready_the_gateway_says_so(tmp_path: Path) -> None:
    backend = Backend(answers_after=0.0)
    with Gateway(tmp_path, [backend.server_port]) as gateway, gateway.client() as client:
        backend.shutdown()
        backend.server_close()
        answer = wait_for(lambda: _unready(client), "the gateway to see that nobody is there")
        assert answer.json()["type"] == "urn:everlearn:problem:not-ready"
        assert answer.headers["Retry-After"] == "1"


def _unready(client: httpx.Client) -> httpx.Response | None:
    answer = client.post("/predict", json={})
    return answer if answer.status_code == 503 and "can be reached" in answer.text else None


def test_the_tls_variant_speaks_tls(house: House, tmp_path: Path) -> None:
    write_certificate(tmp_path)
    with Gateway(tmp_path, house.ports, ["tls"]) as gateway:
        with httpx.Client(base_url=gateway.url, verify=ssl.create_default_context(cafile=tmp_path / "cert.pem")) as client:
            assert client.post("/predict", json=PREDICT).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{gateway.port}/livez")


def test_the_jwt_variant_lets_in_who_has_a_token(house: House, tmp_path: Path) -> None:
    key, stranger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    (tmp_path / "jwks.json").write_text(str({"keys": [{**public, "kid": "k", "alg": "ES256"}]}).replace("'", '"'))
    with Gateway(tmp_path, house.ports, ["jwt"]) as gateway, gateway.client() as client:

        def ask(signer: Any, **claims: Any) -> httpx.Response:
            said = {"iss": "https://issuer.example", "aud": "everlearn", "sub": "shop", "exp": time.time() + 60, **claims}
            token = jwt.encode(said, signer, "ES256", headers={"kid": "k"})
            return client.post("/predict", json=PREDICT, headers={"Authorization": f"Bearer {token}"})

        assert client.get("/livez").status_code == 200
        assert ask(key).status_code == 200
        assert ask(key, exp=time.time() - 600).status_code == 401
        assert ask(key, iss="https://other.example").status_code == 401
        assert ask(stranger).status_code == 401
        answer = client.post("/predict", json=PREDICT)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:everlearn:problem:unauthenticated")


def write_certificate(folder: Path) -> None:
    """Write a certificate for this machine that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*secret))


def test_a_replica_is_replaced_under_load_and_then_the_other_and_nobody_notices(house: House) -> None:
    """A rolling upgrade; the ports stay. Of a worker that is killed nobody sees more than a prediction that is not kept."""
    with Load(house.gateway.client, INSTANCE) as load:
        for service, port in zip(house.services, house.ports, strict=True):
            assert service.stop() == 0
            load.more(50)
            service._flags = (*service._flags, "--port", str(port))
            service.start()
            wait_for(lambda service=service: '"route": "/predict"' in service.log(), "the gateway to ask it again")
            load.more(50)
        assert load.resent == 0
        os.kill(house.services[0].pids("worker")[0], 9)
        load.more(50)
    assert load.failures == []
    assert len(set(load.seqs)) == len(load.seqs)
    with house.gateway.client() as client:
        wait_for(lambda: client.get("/model").json()["lag"] == 0, "all to be learned")
        assert all(client.get(f"/feedback/{seq}").status_code == 200 for seq in load.seqs[-20:])
        assert client.get("/model").json()["log_seq"] >= max(load.seqs)
