from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from models.sequences import MOST_EVENTS, Events


def test_the_latest_events_are_looked_at_oldest_first() -> None:
    kind = Events(length=2)
    batch = kind.collate([kind.prepare(events) for events in (["a", "b", "c"], ["c"], [])])
    (b, c), other, nothing = batch["events"].tolist()
    assert len({b, c}) == 2
    assert (other, nothing) == ([c, -1], [-1, -1])
    assert batch["count"].tolist() == [2, 1, 0]


def test_sequences_without_events_collate() -> None:
    kind = Events()
    assert kind.collate([kind.prepare([])])["events"].shape == (1, 0)


@pytest.mark.parametrize("value", ["home", [1], [""], [None], ["x" * 201], ["x"] * (MOST_EVENTS + 1), {"events": []}])
def test_what_is_no_list_of_names_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Events().instance_type).validate_python(value)


def test_an_instance_outlives_the_log() -> None:
    kind = Events()
    assert kind.load(kind.dump(["ä", "b"])) == ["ä", "b"]


def test_each_event_that_is_looked_at_is_a_part() -> None:
    kind = Events(length=2)
    parts = kind.parts(["a", "b", "c"], None)
    assert parts.count == 2
    assert parts.keep([True, True]) == kind.prepare(["b", "c"])
    assert parts.keep([False, True]) == kind.prepare(["c"])
    assert parts.shaped([0.5, 0.25]) == [0.5, 0.25]
