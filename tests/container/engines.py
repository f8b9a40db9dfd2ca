"""What builds the image and runs containers: Docker, or where there is no engine, buildah and the kernel itself.

The stand-in says what of it is not the real thing: `StandIn.differences`. Its containers have a process and a mount
namespace, a read-only root, no capabilities, the image's user, environment and entry point, and the host's network.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.running import ROOT, wait_for

IMAGE = "everlearn-under-test"
UID = 10001


class Container(Protocol):
    """A running container; the volume outlives it."""

    def stop(self) -> int:
        """Ask it to stop, as `docker stop` does; return the exit status."""

    def kill(self) -> None:
        """Kill all of it at once."""

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as the image's user."""


class Engine(Protocol):
    """Builds the image, and runs it."""

    differences: list[str]

    def build(self) -> int:
        """Build the image from the Dockerfile; return its size in bytes."""

    def run(self, volume: Path, **environment: str) -> Container:
        """Start a container with a data directory."""

    def close(self) -> None:
        """Remove what would only take room."""


def engine(folder: Path) -> Engine:
    """Return Docker where its engine runs, else the stand-in."""
    docker = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    return Docker() if docker else StandIn(folder)


class Docker:
    """The real thing."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self._volumes: set[str] = set()

    def build(self) -> int:
        run("docker", "build", "--tag", IMAGE, str(ROOT))
        return int(run("docker", "image", "inspect", "--format", "{{.Size}}", IMAGE))

    def run(self, volume: Path, **environment: str) -> DockerContainer:
        given = [option for name, value in environment.items() for option in ("--env", f"{name}={value}")]
        confined = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
        name = f"{IMAGE}-{volume.name}-{os.getpid()}"  # a volume of Docker's takes the owner that the image gives it
        self._volumes.add(name)
        mounted = ["--network", "host", "--volume", f"{name}:/data"]
        return DockerContainer(run("docker", "run", "--detach", *confined, *mounted, *given, IMAGE))

    def close(self) -> None:
        for name in self._volumes:
            run("docker", "volume", "rm", name)


class DockerContainer:
    """A container of Docker's."""

    def __init__(self, name: str) -> None:
        self._name = name

    def stop(self) -> int:
        run("docker", "stop", "--time", "40", self._name)
        return self._end()

    def kill(self) -> None:
        run("docker", "kill", self._name)
        self._end()

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "exec", self._name, *command], capture_output=True, text=True, check=False)

    def _end(self) -> int:
        status = int(run("docker", "wait", self._name))
        run("docker", "rm", self._name)
        return status


class StandIn:
    """buildah in a chroot builds the same Dockerfile; unshare, setpriv and chroot run what it made."""

    BASE = "docker.io/library/python:3.11-slim-bookworm"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._container = ""
        self._root = ""
        self.differences = ["no Docker engine: built by buildah, run by chroot in namespaces of its own, on the host's network"]
        os.environ.update(BUILDAH_ISOLATION="chroot", STORAGE_DRIVER="vfs", PATH=f"{os.environ['PATH']}:/usr/sbin:/sbin")

    def build(self) -> int:
        self._make_base()
        context = self._make_context()
        options = ["--pull=never", "--format", "docker", "--network", "host", *self._pip_mounts()]
        if self._torch != "cpu":
            options += ["--build-arg", f"TORCH={self._torch}"]
        run("buildah", "bud", *options, "--tag", IMAGE, str(context))
        (image,) = json.loads(run("buildah", "images", "--json", IMAGE))
        self._container = run("buildah", "from", "--pull=never", f"localhost/{IMAGE}")
        self._root = run("buildah", "mount", self._container)
        config = json.loads(run("buildah", "inspect", "--type", "image", f"localhost/{IMAGE}"))["Docker"]["config"]
        self._environment = dict(line.split("=", 1) for line in config["Env"])
        self._command = [*config["Entrypoint"], *config["Cmd"]]
        self._user = config["User"].split(":")
        assert image
        return sum(path.lstat().st_size for path in Path(self._root).rglob("*") if path.is_file() and not path.is_symlink())

    def run(self, volume: Path, **environment: str) -> StandInContainer:
        os.chown(volume, UID, UID)
        root = self._root
        prepared = [
            f"mount --bind {root} {root} && mount -o remount,bind,ro {root} && mount -t tmpfs none {root}/tmp",
            f"mount --bind {volume} {root}/data && mount --rbind /dev {root}/dev && mount -t proc proc {root}/proc",
            f'exec chroot {root} "$@"',
        ]
        inside = [*_confined(*self._user), "env", "-C", "/tmp", *self._command]
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", " && ".join(prepared), "sh", *inside]
        process = subprocess.Popen(
            command, env={**self._environment, "PATH": self._path, **environment}, start_new_session=True
        )
        return StandInContainer(process, self._user)

    @property
    def _path(self) -> str:
        return f"{self._environment['PATH']}:/usr/sbin:/sbin"

    def close(self) -> None:
        if self._container:
            run("buildah", "umount", self._container)
            run("buildah", "rm", self._container)
            run("buildah", "rmi", f"localhost/{IMAGE}")

    def _make_base(self) -> None:
        if (
            subprocess.run(["buildah", "pull", "--policy", "always", self.BASE], capture_output=True, check=False).returncode
            == 0
        ):
            return
        self.differences.append(f"{self.BASE} can't be pulled: a minimal Debian with its own Python, made by mmdebstrap")
        if json.loads(run("buildah", "images", "--json", "--filter", f"reference={self.BASE}")):  # made by an earlier run
            return
        tar = self._folder / "base.tar"
        packages = "python3,python3-venv,python3-pip,ca-certificates,passwd"
        run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", str(tar))
        base = run("buildah", "from", "scratch")
        run("buildah", "add", "--quiet", base, str(tar), "/")
        run("buildah", "run", base, "--", "ln", "-sf", "python3", "/usr/bin/python")
        run("buildah", "commit", "--quiet", "--format", "docker", base, self.BASE)
        run("buildah", "rm", base)
        tar.unlink()

    def _make_context(self) -> Path:
        """Copy what git has, and name a torch for CPUs that is to be had, where PyTorch's own index is not."""
        context = self._folder / "context"
        names = run("git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        for name in names:
            if (ROOT / name).is_file():
                (context / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, context / name)
        self._torch = "cpu"
        wanted = ["--no-deps", "--dry-run", "--ignore-installed", "--requirement", str(context / "docker" / "torch-cpu.lock")]
        if subprocess.run([sys.executable, "-m", "pip", "install", *wanted], capture_output=True, check=False).returncode:
            self._torch = "here"
            wheel = next(wheel for folder in self._wheel_folders() for wheel in sorted(folder.glob("torch-*+cpu*.whl")))
            version = wheel.name.split("-")[1]
            (context / "docker" / "torch-here.lock").write_text(f"torch=={version}\n")
            self.differences.append(f"PyTorch's index can't be asked: torch {version} of this machine, and no torchvision")
        return context

    def _pip_mounts(self) -> list[str]:
        """Mount pip's configuration as one file, and the folders and certificates that it names: none gets into the image."""
        merged: dict[str, str] = {}
        for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
            name, _, value = line.partition("=")
            if name.split(".")[-1] in ("cert", "find-links", "index-url", "extra-index-url"):
                merged[name.split(".")[-1]] = value.strip("'")
        config = self._folder / "pip.conf"
        config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in merged.items()))
        words = [word.removeprefix("file://") for value in merged.values() for word in value.split()]
        named = [Path(word) for word in words if word.startswith("/") and Path(word).exists()]
        folders = {path if path.name != "simple" else path.parent for path in named}
        mounts = [f"{config}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in sorted(folders))]
        return [option for mount in mounts for option in ("--volume", mount)]

    def _wheel_folders(self) -> list[Path]:
        listed = run(sys.executable, "-m", "pip", "config", "list").splitlines()
        return [Path(line.partition("=")[2].strip("'")) for line in listed if "find-links" in line]


class StandInContainer:
    """A process namespace; its first process is the image's entry point."""

    def __init__(self, process: subprocess.Popen[bytes], user: Sequence[str]) -> None:
        self._process = process
        self._user = user
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        self._first = int(wait_for(children.read_text, "the first process").split()[0])

    def stop(self) -> int:
        os.kill(self._first, signal.SIGTERM)
        return self._process.wait(60)

    def kill(self) -> None:
        os.kill(self._first, signal.SIGKILL)  # the kernel kills all others of the namespace with it
        self._process.wait(60)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = dict(line.split("=", 1) for line in Path(f"/proc/{self._first}/environ").read_text().split("\0") if line)
        entered = ["nsenter", "--target", str(self._first), "--mount", "--pid", "--root", "--wdns=/tmp"]
        inside = [*entered, *_confined(*self._user), *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False, env=environment)


def _confined(user: str, group: str) -> list[str]:
    ids = ["--reuid", user, "--regid", group, "--clear-groups"]
    return ["setpriv", *ids, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


def run(*command: str) -> str:
    """Run a command to its end; return what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command[:3])}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def timed(began: float) -> str:
    """Return how long something took, in words."""
    return f"{time.monotonic() - began:.1f} s"
