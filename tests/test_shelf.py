from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from models.base import OnlineModel
from models.scenes import Scene
from service.checkpointing import first_state, items_of
from service.learning.update import Item
from service.shelf import LEAST_BYTES, Shelf, _bytes_of
from service.store import Entry
from tests.workshop import Workshop


class Log:
    """A log that says what was looked up in it."""

    def __init__(self, workshop: Workshop) -> None:
        self._log = workshop.log
        self.looked_up: list[int] = []

    def fetch(self, seqs: Sequence[int]) -> dict[int, Entry]:
        self.looked_up += seqs
        return self._log.fetch(seqs)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with closing(Workshop(tmp_path)) as workshop:
        workshop.send(6)
        yield workshop


@pytest.fixture
def log(workshop: Workshop) -> Log:
    return Log(workshop)


@pytest.fixture
def model(workshop: Workshop) -> OnlineModel:
    return first_state(workshop.shaping, "cpu").model


def said(items: dict[int, Item]) -> dict[int, tuple[list[float], str]]:
    return {seq: (item.prepared.tolist(), item.label) for seq, item in items.items()}


def test_what_it_gives_is_what_the_log_has(workshop: Workshop, log: Log, model: OnlineModel) -> None:
    shelf = Shelf(log.fetch)
    shelf.new(model, workshop.log.read(0, 3))
    found = shelf.fetch(model, [5, 2, 3])
    assert said(found) == said(items_of(model.input, workshop.log.fetch([5, 2, 3])))
    assert list(found) == [5, 2, 3]
    assert log.looked_up == [5]


def test_what_was_looked_up_stays(log: Log, model: OnlineModel) -> None:
    shelf = Shelf(log.fetch)
    assert said(shelf.fetch(model, [1, 4])) == said(shelf.fetch(model, [1, 4]))
    assert log.looked_up == [1, 4]


def test_an_entry_that_is_not_there_is_absent(log: Log, model: OnlineModel) -> None:
    assert list(Shelf(log.fetch).fetch(model, [1, 99])) == [1]


def test_what_was_taken_longest_ago_goes_where_there_is_no_room(log: Log, model: OnlineModel) -> None:
    shelf = Shelf(log.fetch, most=3 * LEAST_BYTES)
    shelf.fetch(model, [1, 2])
    shelf.fetch(model, [1])
    shelf.fetch(model, [3])
    log.looked_up.clear()
    shelf.fetch(model, [1, 3])
    assert log.looked_up == []
    shelf.fetch(model, [2])
    assert log.looked_up == [2]


def test_more_than_there_is_room_for_is_given_all_the_same(log: Log, model: OnlineModel) -> None:
    assert list(Shelf(log.fetch, most=1).fetch(model, [1, 2, 3])) == [1, 2, 3]


def test_what_is_encoded_comes_back_whole_where_that_is_asked(log: Log, model: OnlineModel) -> None:
    shelf = Shelf(log.fetch)
    assert shelf.fetch(model, [1], encoded=[1])[1].prepared is None
    assert shelf.fetch(model, [1], encoded=[1])[1].label == "a"
    assert log.looked_up == [1]
    assert shelf.fetch(model, [1])[1].prepared is not None
    shelf.strip([1, 2])
    assert shelf.fetch(model, [1], encoded=[1])[1].prepared is None


def test_what_is_forgotten_is_not_kept(workshop: Workshop, log: Log, model: OnlineModel) -> None:
    shelf = Shelf(log.fetch)
    shelf.fetch(model, [1, 2])
    shelf.forget([2, 6])
    log.looked_up.clear()
    shelf.fetch(model, [1, 2])
    assert log.looked_up == [2]


def test_a_scene_counts_as_its_pixels_whatever_size_its_file_has_and_so_does_what_was_said_of_it() -> None:
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "white").save(file, "PNG")
    pixels = 3 * 64 * 64
    scene = Item(Scene(size=64).prepare(file.getvalue()), [])
    assert pixels < _bytes_of(scene, 100) - LEAST_BYTES < pixels + 1000
    boxes = [{"label": "x" * 1000, "box": [0.0, 0.0, 1.0, 1.0]}]
    answered = scene._replace(label=boxes, answer={"boxes": boxes})
    assert 2000 < _bytes_of(answered, 100) - _bytes_of(scene, 100) < 4000
