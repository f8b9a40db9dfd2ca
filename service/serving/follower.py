"""The follower: watches for new versions, loads the newest and has the engine take it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from service import metrics, traces
from service.checkpointing import load_part
from service.serving.engine import Engine
from service.serving.layout import gathered, laid_out
from service.store import CheckpointStore, CorruptCheckpoint, Part, StoreError, Version

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0  # the safety net under the bell
# Times as long as a version took to load, before the next is loaded: a third of a core at most is lost to predictions, however
# fast versions are made, and however large they are.
REST = 2.0


class Follower:
    """A thread. `publish` is called from it, with each version that the engine has taken."""

    def __init__(self, checkpoints: CheckpointStore, engine: Engine, publish: Callable[[Version], None]) -> None:
        self._checkpoints = checkpoints
        self._engine = engine
        self._publish = publish
        self._served = -1
        self._frozen: tuple[str, Mapping[str, Tensor]] = ("", {})
        # A GPU computes on while a version is copied to it; without a stream all this says nothing.
        self._stream = torch.cuda.Stream(engine.device) if engine.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End within a moment."""
        self._stopping.set()
        self._checkpoints.wake()
        self._thread.join(2 * POLL_SECONDS)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                began = time.thread_time()
                self._advance()
                self._stopping.wait(REST * (time.thread_time() - began))
                self._checkpoints.wait(POLL_SECONDS)
            except StoreError as exc:
                log.warning("follower.store_failed: %s", exc)
                time.sleep(POLL_SECONDS)

    def _advance(self) -> None:
        """Serve the newest version. Those between are skipped: only the newest matters."""
        newest = self._checkpoints.latest()
        if newest is None or newest.version <= self._served:
            return
        before = self._served if self._served >= 0 else newest.version - 1
        made = self._checkpoints.traces(before, newest.version)
        with traces.span("swap", follows=made[-1] if made else None):
            traces.link(made[:-1])
            traces.tell(version=newest.version, seq=newest.applied_seq)
            self._swap(newest)

    def _swap(self, newest: Version) -> None:
        started = time.perf_counter()
        try:
            tensors = {**self._frozen_tensors(newest), **self._load(newest, "model")}
        except CorruptCheckpoint as exc:
            # Either damaged, then the last good version is served on, or retired since we asked, then there is a newer.
            log.error("follower.checkpoint_unusable: %s", exc, extra={"version": newest.version})
            return
        self._engine.swap(newest, tensors).result()
        metrics.swap_seconds.observe(time.perf_counter() - started)
        metrics.swap_delay_seconds.observe(max(0.0, time.time() - newest.created_at))
        self._served = newest.version
        log.debug("follower.swapped", extra={"version": newest.version, "seq": newest.applied_seq})
        self._publish(newest)

    def _frozen_tensors(self, version: Version) -> Mapping[str, Tensor]:
        """Return what no update changes; loaded once."""
        sha256 = version.parts["frozen"]
        if self._frozen[0] != sha256:
            self._frozen = (sha256, self._load(version, "frozen"))
        return self._frozen[1]

    def _load(self, version: Version, part: Part) -> Mapping[str, Tensor]:
        tensors = load_part(self._checkpoints, version, part)
        # What is mapped takes no memory of this process, as long as it can stay where it is.
        placed = gathered(tensors) if part == "model" else {name: laid_out(tensor) for name, tensor in tensors.items()}
        with torch.cuda.stream(self._stream):
            taken = {name: tensor.to(self._engine.device) for name, tensor in placed.items()}
        if self._stream is not None:
            self._stream.synchronize()
        return taken
