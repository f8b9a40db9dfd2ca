"""`everlearn doctor`: what keeps a service from running well here, and what to do about it. Nothing is changed."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import torch

from models.errors import ModelError
from models.registry import build_model, without_weights
from service.access import AccessError, check_exposure, open_access
from service.access.keys import read_keys
from service.checkpointing import ShapingDiffers, available, check_log, check_shaping, shaping_of
from service.serving.engine import Engine
from service.settings import ServerSettings, Settings
from service.store import StoreError, Version
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog

WRITTEN = datetime(2026, 11, 1, tzinfo=UTC).timestamp()  # no clock that is right shows an earlier time
SKEW = 60.0  # seconds that clocks may differ by
SLOW_SYNC = 0.05  # seconds; an update waits for several
LEAST_FREE, LITTLE_FREE = 100 * 2**20, 2**30  # bytes
ANSWER_SECONDS = 3.0

State = Literal["ok", "look", "wrong"]

ADVICE = {
    "starting": "wait; if it stays so, its log says what the learner is at",
    "stopping": "it was told to stop",
    "store-unavailable": "see what is said of the disk and the data directory above, and its log",
}
"""What to do about each reason why a service is not ready."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing."""

    about: str
    state: State
    words: str
    advice: str = ""


def findings(settings: Settings) -> Iterator[Finding]:
    """Look at everything that the settings name, in the order in which a start would."""
    answer = _answer(settings.server)
    yield _clock()
    for check in (_model, _devices, _access):
        yield check(settings)
    if settings.serving.compile:
        yield _compiler(settings)
    yield from _directory(settings)
    yield _disk(settings.store.data)
    yield _port(settings.server, answer)
    yield _service(settings, answer)


def _model(settings: Settings) -> Finding:
    try:
        model = build_model(without_weights(shaping_of(settings)["model"]))
    except ModelError as exc:
        return Finding(
            "model", "wrong", str(exc), "change it in the configuration; `everlearn init --list` shows what there is"
        )
    learned = sum(parameter.numel() for _, parameter in model.trainable())
    return Finding("model", "ok", f"{model.head.task} of {model.input.kind} instances, {learned:,} weights that learn")


def _devices(settings: Settings) -> Finding:
    try:
        used = {available(f"{part}.device", getattr(settings, part).device) for part in ("serving", "learner")}
    except ModelError as exc:
        return Finding(
            "device", "wrong", str(exc), 'set it to "cpu", or install a torch that sees the GPU (nvidia-smi shows it)'
        )
    if torch.cuda.is_available() and used == {"cpu"}:
        name = torch.cuda.get_device_name(0)
        return Finding(
            "device", "look", f"cpu, and there is a {name}", 'serving.device = "cuda" and learner.device = "cuda" use it'
        )
    return Finding("device", "ok", ", ".join(sorted(used)))


def _compiler(settings: Settings) -> Finding:
    """Compile as a start would: whether that works depends on the encoder, the compiler and the headers of libraries."""
    serving = settings.serving
    try:
        model = build_model(without_weights(shaping_of(settings)["model"])).to(available("serving.device", serving.device))
    except ModelError:
        return Finding("compiler", "look", "it was not tried", "see the model and the device, above")
    began = time.perf_counter()
    try:
        Engine(model, precision=serving.precision).compile(serving.batch)
    except ModelError as exc:
        advice = "install a C++ compiler (Debian: apt-get install g++), or leave serving.compile out: nothing else needs it"
        return Finding("compiler", "wrong", str(exc), advice)
    return Finding("compiler", "ok", f"the encoder is compiled in {time.perf_counter() - began:.0f} s, at each start")


def _access(settings: Settings) -> Finding:
    access, data = settings.access, settings.store.data
    try:
        check_exposure(access, _address(settings.server))
        if access.mode != "keys":
            open_access(access, data)
        elif not read_keys(data / access.keys).keys:
            return Finding("access", "look", "nobody may call yet", "`everlearn keys add NAME --scope predict` makes a key")
    except AccessError as exc:
        return Finding("access", "wrong", str(exc), "see docs/security.md")
    return Finding("access", "ok", f"mode {access.mode!r} on {settings.server.host}")


def _directory(settings: Settings) -> Iterator[Finding]:
    """Look at the data directory: who may use it, whether the disk keeps what it is told to, and what is in it."""
    root = settings.store.data
    place = _nearest(root)
    yield _writable(place)
    if place != root.absolute() or not any(root.iterdir()):
        yield Finding("data", "ok", f"{root} holds nothing yet; `everlearn serve` begins it")
        return
    yield _permissions(root)
    try:
        directory = DataDirectory(root).open()
        with closing(EmbeddedCheckpointStore(directory, keep=settings.store.checkpoints)) as checkpoints:
            yield _content(settings, directory, checkpoints)
            if newest := checkpoints.latest():
                yield _age(newest)
    except ShapingDiffers as exc:
        yield Finding("data", "wrong", str(exc), "the settings that it was made with are in `everlearn export`'s model.json")
    except ModelError:
        yield Finding("data", "look", f"{root} was not compared with a model that can't be made", "see the model, above")
    except (StoreError, OSError) as exc:
        yield Finding(
            "data", "wrong", str(exc), "name the right directory with --data, or restore a backup (docs/operations.md)"
        )


def _writable(place: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"everlearn")
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            seconds = time.perf_counter() - began
    except OSError as exc:
        owner, user = place.stat().st_uid, os.geteuid()
        who = f"it belongs to user {owner}, and this is user {user}"
        advice = f"chown -R {user} {place}" if owner != user else f"mount {place} so that it can be written, or chmod u+rwx"
        return Finding("write", "wrong", f"{place} can't be written: {exc.strerror}; {who}", advice)
    words = f"{place} keeps what is written in {1000 * seconds:.1f} ms"
    if seconds > SLOW_SYNC:
        return Finding("write", "look", f"{words}, and every update waits for that several times", "use a local disk")
    return Finding("write", "ok", words)


def _permissions(root: Path) -> Finding:
    if root.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        others = f"{root} is open to other users of this machine: it holds all that was learned from"
        return Finding("permissions", "look", others, f"chmod 700 {root}")
    return Finding("permissions", "ok", f"{root} is its owner's alone")


def _content(settings: Settings, directory: DataDirectory, checkpoints: EmbeddedCheckpointStore) -> Finding:
    """Raises StoreError and ShapingDiffers."""
    if recorded := checkpoints.shaping():
        check_shaping(recorded, shaping_of(settings))
    with closing(EmbeddedFeedbackLog(directory)) as log:
        check_log(log, checkpoints)
        end = log.end()
    newest = checkpoints.latest()
    held = "no version yet" if newest is None else f"version {newest.version}"
    return Finding("data", "ok", f"{directory.root} holds {held} and the log up to seq {end}")


def _disk(root: Path) -> Finding:
    place = _nearest(root)
    free = shutil.disk_usage(place).free
    words = f"{free / 2**30:.1f} GiB free at {place}"
    advice = "make room, or keep less: store.checkpoints, store.journal_bytes"
    if free < LITTLE_FREE:
        return Finding("disk", "wrong" if free < LEAST_FREE else "look", words, advice)
    return Finding("disk", "ok", words)


def _nearest(root: Path) -> Path:
    """Return the directory, or the nearest one above it that is there."""
    return next(each for each in (root.absolute(), *root.absolute().parents) if each.is_dir())


def _clock() -> Finding:
    now = time.time()
    if now < WRITTEN:
        return Finding(
            "clock", "wrong", f"it shows {_shown(now)}, before this everlearn was written", "set it, and keep it by NTP"
        )
    return Finding("clock", "ok", _shown(now))


def _age(newest: Version) -> Finding:
    ahead = newest.created_at - time.time()
    if ahead > SKEW:
        made = f"version {newest.version} was made {ahead:.0f} s from now, by the clock"
        return Finding("clock", "wrong", made, "set the clock, and keep it by NTP; tokens and prediction ids expire by it")
    return Finding("clock", "ok", f"version {newest.version} was made {_shown(newest.created_at)}")


def _port(server: ServerSettings, answer: httpx.Response | None) -> Finding:
    place = f"port {server.port} on {server.host}"
    if server.port == 0:
        return Finding("port", "ok", "a free one is taken")
    if answer is not None and _is_ours(answer):
        return Finding("port", "ok", f"{place} is the running service's")
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as exc:
            taken = f"{place} can't be listened on: {exc.strerror or exc}"
            return Finding("port", "wrong", taken, "stop what has it (`ss -ltnp` shows that), or set server.port")
    return Finding("port", "ok", f"{place} is free")


def _service(settings: Settings, answer: httpx.Response | None) -> Finding:
    url = settings.server.url
    if answer is None or not _is_ours(answer):
        return Finding("service", "ok", "none runs here; `everlearn serve` starts one")
    if not answer.is_success:
        reasons = answer.json().get("reasons", [])
        advice = "; ".join(ADVICE.get(reason, "see its log") for reason in reasons)
        return Finding("service", "wrong", f"{url} is not ready: {answer.json()['detail']}", advice)
    if not _led(settings.store.data):
        words = f"{url} is ready, and no learner works on {settings.store.data}"
        return Finding("service", "wrong", words, "its log says why; or it has another data directory than --data says")
    return Finding("service", "ok", f"{url} is ready, and a learner works on {settings.store.data}")


def _led(root: Path) -> bool:
    """Return whether a learner works on a data directory."""
    try:
        with closing(EmbeddedCheckpointStore(DataDirectory(root).open(), keep=2)) as checkpoints:
            return checkpoints.led()
    except (StoreError, OSError):
        return False


def _answer(server: ServerSettings) -> httpx.Response | None:
    """Return what /readyz says where the service would be, None where nobody answers."""
    if server.port == 0:
        return None
    try:
        return httpx.get(f"{server.url}/readyz", timeout=ANSWER_SECONDS, trust_env=False)  # no proxy: it is here
    except httpx.HTTPError:
        return None


def _is_ours(answer: httpx.Response) -> bool:
    """Return whether it is an everlearn that answers."""
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and (body.get("status") == "ready" or str(body.get("type", "")).startswith("urn:everlearn:"))


def _address(server: ServerSettings) -> str:
    """Return the address that a host's name stands for. Raises AccessError where it stands for none."""
    try:
        return str(socket.getaddrinfo(server.host, None)[0][4][0])
    except OSError as exc:
        raise AccessError(f"server.host: {server.host!r} is no address of this machine: {exc.strerror}") from exc


def _shown(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def examine(settings: Settings, tell: Callable[[Finding], object]) -> bool:
    """Tell each finding; return whether nothing is wrong."""
    well = True
    for finding in findings(settings):
        tell(finding)
        well = well and finding.state != "wrong"
    return well
