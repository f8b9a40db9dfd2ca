"""What the engine serves now, as the event loop knows it, and waiting for it to contain some feedback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.position import Position
from service.store import Version


@dataclass(frozen=True, slots=True)
class Serving:
    """A version that the engine has taken."""

    version: Version
    labels: Sequence[str]
    descriptions: Mapping[str, Sequence[str]]


class Served:
    """The latest `Serving`, and those who wait for a later one. Used on the event loop only."""

    def __init__(self) -> None:
        self.now: Serving | None = None
        self.draining = False
        self._changed = asyncio.Event()

    def publish(self, serving: Serving) -> None:
        """Make a version known."""
        self.now = serving
        self._wake()

    def drain(self) -> None:
        """Let nobody wait any longer: the process is about to stop."""
        self.draining = True
        self._wake()

    async def contains(self, seq: int, seconds: float) -> int | None:
        """Wait until the served version contains a sequence number; return the version, None after `seconds`."""
        return await self.until(lambda version: Position.of(version).contains(seq), seconds)

    async def until(self, reached: Callable[[Version], bool], seconds: float) -> int | None:
        """Wait until a version for which `reached` is true is served; return it, None after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                while not self.draining:
                    if self.now is not None and reached(self.now.version):
                        return self.now.version.version
                    await self._changed.wait()
        except TimeoutError:
            pass
        return None

    def _wake(self) -> None:
        waited_for, self._changed = self._changed, asyncio.Event()
        waited_for.set()
