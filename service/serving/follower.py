"""The follower: watches for new versions, loads the newest and has the engine take it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from torch import Tensor

from service.checkpointing import load_part
from service.serving.engine import Engine
from service.store import CheckpointStore, CorruptCheckpoint, Part, StoreUnavailable, Version

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0  # the safety net under the bell


class Follower:
    """A thread. `publish` is called from it, with each version that the engine has taken."""

    def __init__(self, checkpoints: CheckpointStore, engine: Engine, publish: Callable[[Version], None]) -> None:
        self._checkpoints = checkpoints
        self._engine = engine
        self._publish = publish
        self._served = -1
        self._frozen: tuple[str, Mapping[str, Tensor]] = ("", {})
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End within a moment."""
        self._stopping = True
        self._thread.join(2 * POLL_SECONDS)

    def _follow(self) -> None:
        while not self._stopping:
            try:
                self._advance()
                self._checkpoints.wait(POLL_SECONDS)
            except StoreUnavailable as exc:
                log.warning("follower.store_failed: %s", exc)
                time.sleep(POLL_SECONDS)

    def _advance(self) -> None:
        """Serve the newest version. Those between are skipped: only the newest matters."""
        newest = self._checkpoints.latest()
        if newest is None or newest.version <= self._served:
            return
        try:
            tensors = {**self._frozen_tensors(newest), **self._load(newest, "model")}
        except CorruptCheckpoint as exc:
            # Either damaged, then the last good version is served on, or retired since we asked, then there is a newer.
            log.error("follower.checkpoint_unusable: version %d: %s", newest.version, exc)
            return
        self._engine.swap(newest, tensors).result()
        self._served = newest.version
        self._publish(newest)

    def _frozen_tensors(self, version: Version) -> Mapping[str, Tensor]:
        """Return what no update changes; loaded once."""
        sha256 = version.parts["frozen"]
        if self._frozen[0] != sha256:
            self._frozen = (sha256, self._load(version, "frozen"))
        return self._frozen[1]

    def _load(self, version: Version, part: Part) -> Mapping[str, Tensor]:
        tensors = load_part(self._checkpoints, version, part)
        return {name: tensor.to(self._engine.device) for name, tensor in tensors.items()}
