"""The gate, over a real model that learns, is harmed, and meets honest drift."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from models.registry import build_model
from service.learning.factors import DOUBTED
from service.learning.gate import FEWEST_LEARNED, Gate, UpdateHarms
from service.learning.holdout import MOST_SOURCES
from service.learning.limits import UpdateRefused
from service.learning.update import Item, LearningState
from service.settings import GateSettings, LearningSettings

MODEL: dict[str, Any] = {
    "input": {"kind": "vector", "length": 2},
    "encoder": {"name": "tabular", "hidden": [8]},
    "head": {"name": "classification", "experts": ["linear"]},
}
SECRET = b"s" * 32


class Course:
    """A stream of points of two classes that a state learns behind a gate, as the learner does it."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.state = LearningState(build_model(MODEL, seed=0), LearningSettings())
        self.items: dict[int, Item] = {}
        self.held: list[int] = []
        self.factors: dict[int, float] = {}
        self._rng = np.random.default_rng(0)

    def fetch(self, seqs: Sequence[int], _: Container[int]) -> Mapping[int, Item]:
        return {seq: self.items[seq] for seq in seqs}

    def teach(self, count: int, sources: Sequence[str | None] = (None,), flipped: Container[str | None] = ()) -> Any:
        """Learn one update; return what the gate decided."""
        new: dict[int, Item] = {}
        names: dict[int, str | None] = {}
        for _ in range(count):
            seq = len(self.items) + len(new) + 1
            label, names[seq] = int(self._rng.integers(2)), sources[seq % len(sources)]
            told = 1 - label if names[seq] in flipped else label
            new[seq] = Item((self._rng.normal(3 * label - 1.5, 1, 2)).tolist(), "ab"[told])
        self.items |= new
        held = [seq for seq, item in new.items() if self.gate.holds_out(seq, item, self.state)]
        learned = {seq: item for seq, item in new.items() if seq not in held}
        self.gate.admit({seq: names[seq] for seq in held})
        self.held += held
        factors = self.gate.factors(self.state, learned, names)
        with self.gate.judging(self.state, len(learned), self.fetch) as verdict:
            self.state.update(self.state.plan(list(learned), self.items), self.items, factors)
        self.factors |= factors
        return verdict.decision

    def accuracy(self) -> float:
        items = [Item((self._rng.normal(3 * n - 1.5, 1, 2)).tolist(), "ab"[n]) for n in (0, 1) * 100]
        with torch.no_grad():
            answers = self.state.model.head.answers(self.state.model(self.state.model.collate([i.prepared for i in items])), 1)
        return float(np.mean([answer["label"] == item.label for answer, item in zip(answers, items, strict=True)]))


def course(**settings: Any) -> Course:
    return Course(Gate(GateSettings(effort=1e9, **settings), SECRET, None))


def test_about_the_share_is_held_out_and_nothing_before_the_model_is_grown() -> None:
    taught = course(holdout=0.2)
    taught.teach(FEWEST_LEARNED)
    assert taught.held == []
    for _ in range(20):
        taught.teach(50)
    assert 0.15 < len(taught.held) / 1000 < 0.25


def test_which_are_held_out_depends_on_the_secret_alone() -> None:
    first, same, other = (Gate(GateSettings(holdout=0.5), secret, None) for secret in (SECRET, SECRET, b"t" * 32))
    chosen = [[seq for seq in range(200) if gate._chosen(seq)] for gate in (first, same, other)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_correction_and_the_first_items_of_a_class_are_always_learned() -> None:
    taught = course(holdout=0.5)
    for _ in range(4):
        taught.teach(50)
    chosen = next(seq for seq in range(1000, 2000) if taught.gate._chosen(seq))
    assert taught.gate.holds_out(chosen, Item([0.0, 0.0], "a"), taught.state)
    assert not taught.gate.holds_out(chosen, Item([0.0, 0.0], "a", replaces=3), taught.state)
    assert not taught.gate.holds_out(chosen, Item([0.0, 0.0], "new"), taught.state)


def test_an_update_that_harms_is_refused_with_its_figures() -> None:
    taught = course(holdout=0.2, doubt=False, source_share=0.0)
    honest = [f"source {number}" for number in range(5)]
    for _ in range(20):
        taught.teach(20, sources=honest)
    with pytest.raises(UpdateHarms, match=r"worse by 0\.\d+ \+- 0\.\d+ on \d+ held-out items") as raised:
        taught.teach(1000, sources=["bad"], flipped=["bad"])
    assert raised.value.decision["harm"] > 0.05


def test_honest_updates_are_accepted_and_their_figures_recorded() -> None:
    taught = course(holdout=0.2)
    decisions = [taught.teach(20) for _ in range(40)]
    judged = [decision for decision in decisions if decision is not None]
    assert len(judged) > 20
    assert all(decision["items"] >= 16 for decision in judged)


def test_weights_that_explode_are_refused() -> None:
    taught = course()
    taught.teach(10)
    explode = [parameter.mul_ for _, parameter in taught.state.model.trainable()]
    with (
        pytest.raises(UpdateRefused, match="the update made the norm of the weights"),
        taught.gate.judging(taught.state, 1, taught.fetch),
        torch.no_grad(),
    ):
        explode[0](1e6)


def unjudged(scores: Any) -> torch.Tensor:
    return torch.tensor([0.0] + [torch.nan] * (len(scores["accuracy"]) - 1))


def test_a_head_that_can_judge_next_to_nothing_has_its_updates_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = course(holdout=0.2)
    for _ in range(20):
        taught.teach(20)
    monkeypatch.setattr(taught.state.model.head, "losses", unjudged)
    assert taught.teach(20) is None


def test_a_model_that_gives_no_answer_any_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = course(holdout=0.2)
    for _ in range(20):
        taught.teach(20)
    with pytest.raises(UpdateHarms, match="worse by"), taught.gate.judging(taught.state, 20, taught.fetch):
        monkeypatch.setattr(taught.state.model.head, "losses", lambda scores: scores["accuracy"] * torch.nan)


def test_what_it_holds_is_bounded_however_many_sources_there_are() -> None:
    gate = Gate(GateSettings(holdout_items=2), SECRET, None)
    for seq in range(1000):
        gate.admit({seq: f"user {seq // 2}"})
    known = json.loads(gate.dump())["holdout"]
    assert [seq for seq, _ in known] == list(range(1000 - 2 * MOST_SOURCES, 1000))


def test_what_it_knows_can_be_taken_in_again() -> None:
    taught = course(holdout=0.2)
    for _ in range(20):
        taught.teach(20, sources=["one", "two", "three", None])
    again = Gate(GateSettings(), SECRET, taught.gate.dump())
    assert again.dump() == taught.gate.dump()
    taught.gate.forget(taught.held)
    assert taught.gate.dump() != again.dump()


def test_a_source_that_lies_is_doubted_and_the_model_stays_right() -> None:
    sources = [f"source {number}" for number in range(5)]
    taught, naive = course(), course(doubt=False, source_share=0.0)
    for each in (taught, naive):
        for _ in range(60):
            each.teach(20, sources=[*sources, "liar", "liar", "liar"], flipped=["liar"])
    assert min(taught.factors.values()) <= DOUBTED
    assert taught.accuracy() > 0.95
    assert taught.accuracy() > naive.accuracy()


def test_where_nobody_says_who_teaches_nothing_weighs_less() -> None:
    taught = course()
    for _ in range(20):
        taught.teach(20)
    assert taught.factors == {}


def test_a_drift_that_all_sources_see_is_learned_at_full_weight() -> None:
    sources = [f"source {number}" for number in range(5)]
    taught = course(holdout=0.05)
    for _ in range(40):
        taught.teach(10, sources=sources)
    before = dict(taught.factors)
    refused = 0
    for _ in range(20):
        good = deepcopy(taught.state)
        try:
            taught.teach(10, sources=sources, flipped=sources)
        except UpdateHarms:
            refused += 1
            taught.state = good
    assert taught.accuracy() < 0.15  # it has learned that everything is the other way round
    assert len(taught.factors) - len(before) < 30
    assert refused < 8
