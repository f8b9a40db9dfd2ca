from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from models.encoders.sequence import Recurrent
from models.errors import SpecificationError
from models.inputs import Text
from models.registry import build_model
from models.sequences import Events
from service.demo.sessions import visits
from service.learning.update import Item, LearningState
from service.settings import LearningSettings

KIND = Events()


def encoder() -> Recurrent:
    torch.manual_seed(0)
    made = Recurrent(KIND)
    made.observe(KIND.collate([KIND.prepare(["a", "b", "c"])]))
    return made


def features(made: Recurrent, *sequences: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return made(KIND.collate([KIND.prepare(sequence) for sequence in sequences]))


def test_what_a_sequence_says_does_not_hang_on_its_neighbours_in_the_batch() -> None:
    made = encoder()
    together = features(made, ["a"], ["a", "b", "c", "a"], [])
    alone = torch.cat([features(made, sequence) for sequence in (["a"], ["a", "b", "c", "a"], [])])
    torch.testing.assert_close(together, alone)
    assert not together[2].any()


def test_the_plain_features_are_the_latest_two_events() -> None:
    made = encoder()
    first, second, third = features(made, ["x", "b", "c"], ["a", "b", "c"], ["a", "c", "b"])
    assert torch.equal(first[: made.plain], second[: made.plain])
    assert not torch.equal(second[: made.plain], third[: made.plain])
    assert not torch.equal(first, second)  # the recurrent state knows what came before


def test_it_takes_sequences_only() -> None:
    with pytest.raises(SpecificationError, match="sequence takes sequence inputs, not text"):
        Recurrent(Text())


def test_what_came_long_ago_is_learned() -> None:
    model = build_model({"input": {"kind": "sequence"}, "encoder": {"name": "sequence"}, "head": {"name": "classification"}})
    state = LearningState(model, LearningSettings())
    stream = islice(visits(np.random.default_rng(0), drift_after=10**9), 1200)
    items = {seq: Item(KIND.prepare(events), following) for seq, (events, following) in enumerate(stream, 1)}
    for first in range(1, len(items), 8):
        state.update(state.plan(range(first, first + 8), items), items)
    asked = [["from:search", "home", "view:bikes"], ["from:ad", "home", "view:bikes"]]
    with torch.no_grad():
        answers = model.head.answers(model(model.collate([KIND.prepare(events) for events in asked])), 1)
    assert [answer["label"] for answer in answers] == ["reviews", "cart"]
