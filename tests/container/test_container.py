"""`make test-container`: the image from the Dockerfile, run behind the gateway, stopped, killed and replaced under load."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.container.engines import UID, Container, Engine, engine, timed
from tests.gateway.load import Load
from tests.gateway.running import Gateway, free_port
from tests.running import learn, wait_for

pytestmark = pytest.mark.container

Say = Callable[[str], None]
Digits = list[tuple[list[float], str]]


@pytest.fixture(scope="module")
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(f"container: {line}" for line in lines))  # noqa: T201


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[Engine]:
    builder = engine(tmp_path_factory.mktemp("image"))
    began = time.monotonic()
    try:
        size = builder.build()
        said += [f"on a stand-in: {difference}" for difference in builder.differences]
        said.append(f"built in {timed(began)}, {size / 1e6:.0f} MB")
        yield builder
    finally:
        builder.close()


class Replica:
    """A container on a port that stays the same."""

    def __init__(self, built: Engine, volume: Path) -> None:
        self._built = built
        self._volume = volume
        self.port = free_port()
        self.container: Container | None = None

    def start(self) -> None:
        environment = {"EVERLEARN_SERVER_PORT": str(self.port), "EVERLEARN_ACCESS_ANONYMOUS": "true"}
        self.container = self._built.run(self._volume, **environment)
        try:
            wait_for(self._is_ready, "the container to be ready")
        except AssertionError:
            self.end()
            raise

    def end(self) -> None:
        if self.container is not None:
            self.container.kill()
            self.container = None

    def stop(self) -> int:
        assert self.container is not None
        status = self.container.stop()
        self.container = None
        return status

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def replicas(built: Engine, tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[list[Replica]]:
    volume = tmp_path_factory.mktemp("volume")
    for folder in (volume, *volume.parents[:3]):
        folder.chmod(0o755)  # the image's user is another than the tests'
    replicas = [Replica(built, volume) for _ in range(2)]
    try:
        for replica in replicas:
            began = time.monotonic()
            replica.start()
            said.append(f"ready {timed(began)} after its start")
        yield replicas
    finally:
        for replica in replicas:
            replica.end()


@pytest.fixture(scope="module")
def gateway(replicas: list[Replica], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), [replica.port for replica in replicas]) as gateway:
        yield gateway


def test_it_runs_as_nobody_in_particular_with_a_root_that_can_t_be_written(replicas: list[Replica]) -> None:
    inside = replicas[0].container
    assert inside is not None
    assert inside.execute("id", "-u").stdout.strip() == str(UID)
    for path in ("/", "/opt/everlearn", "/etc", "/usr/bin"):
        assert "Read-only" in inside.execute("touch", f"{path}/probe").stderr
    assert inside.execute("touch", "/tmp/probe").returncode == 0
    status = inside.execute("cat", "/proc/1/status").stdout
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert status.splitlines()[0] == "Name:\ttini"


def test_it_has_its_bill_of_materials_and_nothing_that_builds(replicas: list[Replica]) -> None:
    inside = replicas[0].container
    assert inside is not None
    bill = json.loads(inside.execute("cat", "/opt/everlearn/sbom.cdx.json").stdout)
    assert bill["bomFormat"] == "CycloneDX"
    assert {"torch", "fastapi", "everlearn"} <= {
        component["name"] for component in [*bill["components"], bill["metadata"]["component"]]
    }
    for tool in ("gcc", "cc", "make", "git", "curl"):
        assert inside.execute("sh", "-c", f"command -v {tool}").returncode != 0
    assert inside.execute("python", "-m", "pip", "--version").returncode != 0


def test_digits_are_learned_through_the_gateway(gateway: Gateway, digits: Digits, said: list[str]) -> None:
    right = 0
    with gateway.client() as client:
        learn(client, digits[:100])
        for instance, label in digits[100:400]:
            answer = client.post("/predict", json={"instances": [instance]})
            prediction = answer.raise_for_status().json()["predictions"][0]
            right += prediction["label"] == label
            feedback = {"feedback": [{"prediction_id": prediction["id"], "label": label}]}
            client.post("/feedback", json=feedback).raise_for_status()
    said.append(f"300 digits through the gateway, each predicted before its label: {right / 3:.0f} % right")
    assert right > 240


def test_each_replica_is_stopped_and_replaced_under_load_and_no_request_fails(
    gateway: Gateway, replicas: list[Replica], digits: Digits, said: list[str]
) -> None:
    with Load(gateway.client, digits[0][0]) as load:
        for replica in replicas:
            load.more(50)
            assert replica.stop() == 0
            load.more(50)
            replica.start()
            time.sleep(3)  # the gateway finds it within two checks
        load.more(50)
    said.append(f"both replicas stopped by SIGTERM and replaced: {len(load.answers)} requests, {len(load.failures)} failed")
    assert load.failures == []
    assert load.resent == 0
    check_kept(gateway, load.seqs, said)


def test_after_sigkill_of_both_nothing_acknowledged_is_lost(
    gateway: Gateway, replicas: list[Replica], digits: Digits, said: list[str]
) -> None:
    with Load(gateway.client, digits[0][0], prefix="killed") as load:
        load.more(100)
        for replica in replicas:
            replica.end()
        time.sleep(0.5)
    for replica in replicas:
        replica.start()
    check_kept(gateway, load.seqs, said)


def check_kept(gateway: Gateway, seqs: list[int], said: list[str]) -> None:
    """Look up each acknowledged item."""
    assert len(set(seqs)) == len(seqs)
    with gateway.client() as client:
        wait_for(lambda: client.get("/readyz").status_code == 200, "the gateway to find a replica")
        wait_for(lambda: client.get("/model").json()["lag"] == 0, "all to be learned")
        fates = [client.get(f"/feedback/{seq}").json()["status"] for seq in seqs]
    lost = [seq for seq, fate in zip(seqs, fates, strict=True) if fate not in ("applied", "holdout")]
    said.append(f"{len(seqs)} items were acknowledged, {len(lost)} lost")
    assert lost == []
