"""Every store goes through one suite: a new one joins by one more parameter here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from service.store import CheckpointStore, FeedbackLog, PredictionJournal
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog, EmbeddedPredictionJournal
from service.store.embedded.parts import SMALL

Opener = Callable[[], FeedbackLog]


@pytest.fixture(params=["embedded"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> DataDirectory:
    """Return where a store keeps its data."""
    assert request.param == "embedded"
    return DataDirectory(tmp_path / "data").create()


@pytest.fixture
def open_log(directory: DataDirectory) -> Iterator[Callable[[], FeedbackLog]]:
    """Return what opens the feedback log, as often as wanted: each is another process's view."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(EmbeddedFeedbackLog(directory)))


@pytest.fixture
def log(open_log: Callable[[], FeedbackLog]) -> FeedbackLog:
    return open_log()


@pytest.fixture
def open_journal(directory: DataDirectory) -> Iterator[Callable[..., PredictionJournal]]:
    """Return what opens the prediction journal."""
    with ExitStack() as stack:

        def open_one(max_age: float = 60.0, max_bytes: int = 10**8) -> PredictionJournal:
            return stack.enter_context(closing(EmbeddedPredictionJournal(directory, max_age=max_age, max_bytes=max_bytes)))

        yield open_one


@pytest.fixture(params=["parts in the database", "parts in files"])
def open_checkpoints(request: pytest.FixtureRequest, directory: DataDirectory) -> Iterator[Callable[..., CheckpointStore]]:
    """Return what opens the checkpoint store."""
    small = SMALL if request.param == "parts in the database" else 0
    with ExitStack() as stack:

        def open_one(keep: int = 3) -> CheckpointStore:
            return stack.enter_context(closing(EmbeddedCheckpointStore(directory, keep=keep, small=small)))

        yield open_one


@pytest.fixture
def checkpoints(open_checkpoints: Callable[..., CheckpointStore]) -> CheckpointStore:
    return open_checkpoints()
