"""A service as its users run it: `everlearn serve` in processes of its own, stopped by the group that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.warm import ROOT, WarmProcess, launch

PATIENCE = 60.0

DIGITS = """
[model.input]
kind = "vector"
length = 64
[model.encoder]
name = "tabular"
[model.head]
name = "classification"
"""


PICTURES = """
[model.input]
kind = "image"
size = 16
[model.encoder]
name = "convolutional"
[model.head]
name = "classification"
experts = ["linear"]
"""


class RunningService:
    """`everlearn serve` on a free port, with its data in a folder; start it as often as you like."""

    def __init__(
        self,
        folder: Path,
        config: str,
        *flags: str,
        environment: dict[str, str] | None = None,
        preload: str = "",
        warm: bool = True,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "everlearn.toml"
        self.config.write_text(config)
        self._flags = flags
        self._environment = environment or {}
        self._preload = preload
        self._warm = warm
        self._process: subprocess.Popen[bytes] | WarmProcess | None = None
        self._log = folder / "serve.log"
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()

    def launch(self) -> subprocess.Popen[bytes] | WarmProcess:
        """Start the processes and do not wait."""
        flags = ["--config", str(self.config), "--data", str(self.data), "--port", "0", *self._flags]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVERLEARN_")}
        environment = {**inherited, **self._environment}
        with self._log.open("wb") as log:
            if self._warm:
                self._process = launch(flags, log=log, environment=environment, preload=self._preload)
            else:
                command = [sys.executable, "-m", "service.cli", "serve", *flags]
                self._process = subprocess.Popen(command, stderr=log, cwd=ROOT, env=environment, start_new_session=True)
        return self._process

    def start(self) -> None:
        """Start the processes and wait until they answer; leave none behind where they don't."""
        process = self.launch()
        try:
            self.url = wait_for(lambda: self.ready_url() or (process.poll() is not None and "ended"), "the service to be ready")
            assert self.url != "ended"
        except AssertionError as failure:
            self.kill()
            raise AssertionError(f"the service did not start: {self.log()[-3000:]}") from failure

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of this service."""
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def log(self) -> str:
        """Return what the processes have said on standard error."""
        return self._log.read_text()

    def terminate(self) -> None:
        """Ask it to stop, as an operator or a container runtime does, and do not wait."""
        assert self._process is not None
        self._process.terminate()

    def stop(self) -> int:
        """Ask it to stop; return the exit status."""
        assert self._process is not None
        self._process.terminate()
        status = self._process.wait(PATIENCE)
        self._process = None
        return status

    def kill(self) -> None:
        """Kill every process of the group at once, as a power cut would."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def pids(self, role: str) -> list[int]:
        """Return the process ids of the running children of a role ("learner" or "worker")."""
        assert self._process is not None
        return [pid for pid in _group(self._process.pid) if _role(pid) == role]

    def ready_url(self) -> str:
        """Return where it answers, once it does."""
        for line in self.log().splitlines():
            if line.startswith("everlearn: ready, "):
                return line.removeprefix("everlearn: ready, ").split("/docs")[0]
            if '"event": "serve.ready"' in line:
                return str(json.loads(line)["url"])
        return ""


@contextmanager
def replicas(folder: Path, config: str) -> Iterator[tuple[RunningService, RunningService]]:
    """Run two services on one data directory, started at the same moment."""
    (folder / "second").mkdir()
    first = RunningService(folder, config, "--standby")
    second = RunningService(folder / "second", config, "--standby", "--data", str(first.data))
    with ExitStack() as stack:
        for service in (first, second):
            service.launch()
            stack.push(service)
        for service in (first, second):
            service.url = wait_for(service.ready_url, "both to be ready")
        yield first, second


def _group(leader: int) -> list[int]:
    """Return the processes of a process group, from /proc: pgrep is not on every machine."""
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return [pid for pid in pids if _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[2:3] == [str(leader)]]


def _role(pid: int) -> str:
    """Return what a process does: a module's name in its command, or the name that a forked one gave itself."""
    command = _read(Path(f"/proc/{pid}/cmdline")).strip("\0")
    module = command.rpartition("\0service.processes.")[2]
    return module if module != command else _read(Path(f"/proc/{pid}/comm")).strip()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has just ended
        return ""


def wait_for(condition: Any, what: str, seconds: float = PATIENCE) -> Any:
    """Return the condition's value as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def learn(client: httpx.Client, items: list[tuple[Any, Any]], **extra: Any) -> dict[str, Any]:
    """Send labelled instances and wait until they are served."""
    feedback = [{"instance": instance, "label": label, **extra} for instance, label in items]
    answer = client.post("/feedback", json={"feedback": feedback}, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def everlearn(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVERLEARN_")}
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env={**inherited, **environment},
        timeout=300,
        check=False,
    )
