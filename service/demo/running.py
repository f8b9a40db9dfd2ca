"""A service that runs for the length of a demo, as a user would run it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console

PORT = 8000
START_SECONDS = 120.0


class DemoFailed(Exception):
    """The demo can't go on; the message says why."""


class Running:
    """`everlearn serve` in processes of its own, on a configuration, from `with` to its end."""

    def __init__(self, config: str, *, data: Path | None, port: int | None, console: Console) -> None:
        """Take a free port where none is given and the usual one is taken, and a temporary folder without `data`."""
        self.console = console
        self._config = config
        self._data = data
        self._port = _usual_port() if port is None else port
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _exit)  # so that the service is stopped too
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="everlearn-demo-")))
        self.data = self._data or scratch / "data"
        self._log = scratch / "serve.log"
        (scratch / "everlearn.toml").write_text(self._config)
        self._process = self._start(scratch / "everlearn.toml")
        self._stack.callback(self._stop)
        try:
            with self.console.status("starting the service"):
                self.url = self._wait_until_ready()
        except BaseException:
            self._stack.close()
            raise
        self.console.print(f"everlearn: serving on {self.url}, data in {self.data}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def serve_on(self, commands: list[str]) -> None:
        """Say how to go on, and serve until Ctrl-C. Raises DemoFailed where the service ends before."""
        self.console.print("\nThe service goes on until Ctrl-C. Try:\n\n" + "\n\n".join(commands), markup=False)
        try:
            self._process.wait()
        except KeyboardInterrupt:
            self.console.print("\nstopping")
            return
        raise DemoFailed("the service ended")

    def _start(self, config: Path) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EVERLEARN_")}
        flags = ["--config", str(config), "--data", str(self.data), "--port", str(self._port)]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "service.cli", "serve", *flags],
                stderr=log,
                env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is ours: we stop the service in order
            )

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _wait_until_ready(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for line in self._log.read_text().splitlines():
                if line.startswith("everlearn: ready, "):
                    return line.removeprefix("everlearn: ready, ").split("/docs")[0]
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise DemoFailed(f"the service did not start:\n{self._log.read_text().strip()}")


def _usual_port() -> int:
    """Return the usual port, or 0 for a free one where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
    return PORT


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
