from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from models.registry import build_model
from service.serving import follower
from service.serving.engine import Engine
from service.serving.follower import REST, Follower
from service.store import Version
from tests.running import wait_for
from tests.workshop import Workshop


class Following:
    """A follower of a workshop's versions; when the first is served, more are made at once."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.learner = workshop.learner()
        self.engine = Engine(build_model(workshop.shaping["model"]))
        self.follower = Follower(workshop.checkpoints, self.engine, self._publish)
        self.served: list[tuple[int, float]] = []

    def close(self) -> None:
        self.follower.stop()
        self.engine.close()
        self.workshop.close()

    def _publish(self, version: Version) -> None:
        self.served.append((version.version, time.monotonic()))
        if len(self.served) == 1:
            self.workshop.send(12)
            self.workshop.learn()


@pytest.fixture
def following(tmp_path: Path) -> Iterator[Following]:
    with closing(Following(Workshop(tmp_path))) as following:
        yield following


def loading_takes(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    monkeypatch.setattr(follower.time, "thread_time", lambda: seconds * next(looks))


def test_the_newest_version_is_served_and_those_between_are_skipped(following: Following) -> None:
    following.follower.start()
    wait_for(lambda: len(following.served) == 2, "the newest version")
    assert [number for number, _ in following.served] == [0, 3]


def test_what_takes_long_to_load_is_loaded_less_often(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    loading_takes(0.2, monkeypatch)
    following.follower.start()
    wait_for(lambda: len(following.served) == 2, "the newest version")
    (_, first), (_, second) = following.served
    assert second - first >= 0.2 * REST


def test_who_rests_stops_at_once(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    loading_takes(1000, monkeypatch)
    following.follower.start()
    wait_for(lambda: len(following.served) == 1, "the first version")
    began = time.monotonic()
    following.follower.stop()
    assert time.monotonic() - began < 1.5
