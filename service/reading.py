"""Opening a data directory for commands that read it, whether a service works on it or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from service.replay import Records
from service.settings import LearnerSettings
from service.store import StoreError, Version
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeatureStore, EmbeddedFeedbackLog


@contextmanager
def reading(data: Path, number: int | None = None) -> Iterator[tuple[Records, Version]]:
    """Give a version, the newest where none is named, and what replay needs to compute it on the device where it was made.

    Raises StoreError where there is none.
    """
    directory = DataDirectory(data).open()
    with ExitStack() as stack:
        feedback = stack.enter_context(closing(EmbeddedFeedbackLog(directory)))
        features = stack.enter_context(closing(EmbeddedFeatureStore(directory)))
        checkpoints = stack.enter_context(closing(EmbeddedCheckpointStore(directory, keep=2)))
        latest, shaping = checkpoints.latest(), checkpoints.shaping()
        if latest is None or shaping is None:
            raise StoreError("there is no version yet")
        version = latest if number is None else checkpoints.get(number)
        if version is None:
            raise StoreError(f"there is no version {number}: the newest is {latest.version}")
        there = version.environment
        settings = LearnerSettings(device=there["device"], threads=there["threads"])
        yield (
            Records(shaping=shaping, settings=settings, feedback=feedback, checkpoints=checkpoints, features=features),
            version,
        )
