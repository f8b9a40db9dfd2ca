from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from models.base import Batch, Encoder, OnlineModel
from models.heads.classification import Classification
from models.inputs import Vector
from models.registry import build_model
from service.learning.limits import UpdateRefused
from service.learning.rehearsal import MEMORIES
from service.learning.update import Item, LearningState, Step
from service.settings import LearningSettings

SPEC = {
    "input": {"kind": "vector", "length": 4},
    "encoder": {"name": "tabular", "hidden": [8]},
    "head": {"name": "classification"},
}


class Noisy(Encoder):
    """Everything that makes resuming hard: batch statistics, dropout, running moments in a buffer."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))

    def forward(self, batch: Batch) -> Tensor:
        features: Tensor = self.layers(batch["numbers"].float())
        return features

    def train_on(self, size: int) -> None:
        self.train(size > 1)


def noisy_model() -> OnlineModel:
    torch.manual_seed(0)
    return OnlineModel(input=Vector(length=4), encoder=Noisy(), head=Classification(6, hidden=[8]))


def plain_model() -> OnlineModel:
    return build_model(SPEC, seed=0)


def items(count: int, classes: int = 3) -> dict[int, Item]:
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(count, 4, generator=generator).tolist()
    return {seq: Item(numbers[seq - 1], f"class {seq % min(classes, 1 + seq // 5)}") for seq in range(1, count + 1)}


def learn(state: LearningState, known: dict[int, Item], first: int, last: int, size: int = 5) -> None:
    for start in range(first, last + 1, size):
        state.update(state.plan(range(start, min(start + size, last + 1)), known), known)


def content(state: LearningState) -> tuple[bytes, bytes, bytes]:
    return state.frozen_bytes(), state.model_bytes(), state.learner_bytes()


SETTINGS = LearningSettings(step_items=3, rehearse=2, memory=10, warm_up=10, recent_age=4)
PLAIN: dict[str, Any] = {"warm_up": 0, "rehearse": 0, "average": 0.0, "drift": "none"}


@pytest.mark.parametrize("make", [plain_model, noisy_model])
@pytest.mark.parametrize("optimizer", [{"name": "sgd", "lr": 0.1, "momentum": 0.9}, {"name": "adam", "lr": 0.01}])
def test_the_same_updates_give_the_same_bits(make: Any, optimizer: dict[str, Any]) -> None:
    settings_ = SETTINGS.model_copy(update={"optimizer": optimizer})
    known, states = items(40), [LearningState(make(), settings_) for _ in range(2)]
    for number, state in enumerate(states):
        torch.manual_seed(number)  # global randomness must not matter
        learn(state, known, 1, 40)
    assert content(states[0]) == content(states[1])


@pytest.mark.parametrize("make", [plain_model, noisy_model])
@pytest.mark.parametrize("stop", [5, 15, 30])
def test_a_resumed_state_goes_on_as_if_never_interrupted(make: Any, stop: int) -> None:
    known, whole = items(40), LearningState(make(), SETTINGS)
    learn(whole, known, 1, stop)
    from safetensors.torch import load

    frozen, model, learner = content(whole)
    resumed = LearningState(make(), SETTINGS)
    resumed.load(whole.updates, {**load(frozen), **load(model)}, load(learner))
    assert content(resumed) == content(whole)
    for state in (whole, resumed):
        learn(state, known, stop + 1, 40)
    assert content(resumed) == content(whole)
    assert resumed.metrics() == whole.metrics()
    assert resumed.by_class() == whole.by_class()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 1))
def test_a_plan_takes_each_new_item_once_in_order(count: int, size: int, warm_up: int) -> None:
    state = LearningState(plain_model(), SETTINGS.model_copy(update={"step_items": size, "warm_up": warm_up}))
    steps = state.plan(range(10, 10 + count), items(9 + count))
    assert [seq for step in steps for seq in step.new] == list(range(10, 10 + count))
    assert all(0 < len(step.new) <= (1 if warm_up else size) for step in steps)


def test_the_first_items_and_those_after_drift_get_a_whole_step_each() -> None:
    state = LearningState(plain_model(), SETTINGS.model_copy(update={"warm_up": 6}))
    assert [len(step.new) for step in state.plan(range(1, 7), items(6))] == [1] * 6
    state.drift.watch(torch.zeros(600), 0, 1, grew=False)
    assert [len(step.new) for step in state.plan(range(1, 7), items(6))] == [3, 3]
    assert state.drift.watch(torch.ones(600), 0, 2, grew=False)
    assert [len(step.new) for step in state.plan(range(1, 7), items(6))] == [1] * 6


def test_rehearsal_takes_what_was_learned_before() -> None:
    known, state = items(30), LearningState(plain_model(), SETTINGS.model_copy(update={"rehearsal": "reservoir"}))
    learn(state, known, 1, 20)
    (step,) = state.plan([21], known)
    assert len(step.rehearsed) == 2
    assert set(step.rehearsed) <= set(range(1, 21))


@pytest.mark.parametrize("policy", MEMORIES)
def test_the_later_steps_of_an_update_rehearse_its_earlier_ones(policy: str) -> None:
    state = LearningState(plain_model(), SETTINGS.model_copy(update={"rehearsal": policy, "memory": 100, "recent_age": 20}))
    before = content(state)
    steps = state.plan(range(1, 41), items(40))
    for number, step in enumerate(steps):
        assert set(step.rehearsed) <= {seq for each in steps[:number] for seq in each.new}
    assert len({seq for step in steps for seq in step.rehearsed}) > 10
    assert content(state) == before  # a plan changes nothing


def test_a_correction_in_the_same_update_is_what_is_rehearsed() -> None:
    state, known = LearningState(plain_model(), LearningSettings()), items(40)
    known[20] = known[20]._replace(replaces=3)
    assert 3 not in {seq for step in state.plan(range(1, 41), known) for seq in step.rehearsed}


def test_one_large_update_class_by_class_ends_with_all_of_them() -> None:
    """An import is one update of hundreds; a folder of pictures, say, comes in the order of its classes."""
    numbers = np.random.default_rng(0).normal(size=(240, 4))
    labels = np.arange(240) // 80
    numbers[np.arange(240), labels] += 4
    known = {seq: Item(row, f"class {label}") for seq, (row, label) in enumerate(zip(numbers.tolist(), labels, strict=True), 1)}
    model = build_model({**SPEC, "head": {"name": "classification", "experts": ["linear"]}}, seed=0)
    state = LearningState(model, LearningSettings())
    state.update(state.plan(range(1, 241), known), known)
    with torch.inference_mode():
        answers = model.head.answers(model(model.collate([item.prepared for item in known.values()])), 1)
    assert np.mean([answer["label"] == item.label for answer, item in zip(answers, known.values(), strict=True)]) > 0.9


def test_a_label_that_was_corrected_is_not_rehearsed_any_more() -> None:
    state = LearningState(plain_model(), LearningSettings())
    known = items(10)
    learn(state, known, 1, 8)
    known[9] = known[9]._replace(replaces=3)
    learn(state, known, 9, 9)
    assert set(state.rehearsal.seqs) == set(range(1, 10)) - {3}


def test_items_are_judged_before_they_are_learned_from() -> None:
    state = LearningState(plain_model(), SETTINGS)
    known = {seq: Item([1.0, 2.0, 3.0, 4.0], f"new {seq}") for seq in range(1, 11)}
    learn(state, known, 1, 10)
    assert state.metrics()["accuracy"] == 0


@pytest.mark.parametrize(("served", "accuracy"), [("class 1", 1.0), ("class 0", 0.0), (None, None)])
def test_an_answer_that_was_served_is_what_is_judged_however_late_its_label_comes(
    served: str | None, accuracy: float | None
) -> None:
    known, answer = items(31, classes=2), None if served is None else {"scores": {served: 0.9}, "classes": 2}
    late, plain = LearningState(plain_model(), SETTINGS), LearningState(plain_model(), SETTINGS)
    for state in (late, plain):
        learn(state, known, 1, 30)
    before = late.metrics()["accuracy"]
    late.update(late.plan([31], known), {**known, 31: known[31]._replace(answer=answer)})
    plain.update(plain.plan([31], known), known)
    expected = plain.metrics()["accuracy"] if accuracy is None else (30 * before + accuracy) / 31
    assert late.metrics()["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert late.model_bytes() == plain.model_bytes()  # judging is no learning


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_expert_and_sgd_is_textbook_gradient_descent(momentum: float) -> None:
    """theta <- theta - eta * grad J, beside torch.optim on a model that torch alone makes."""
    labels = ["a", "b", "c"]
    spec = {
        "input": {"kind": "vector", "length": 4},
        "encoder": {"name": "tabular", "bins": 0},
        "head": {"name": "classification", "experts": ["linear"], "classes": labels},
    }
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": momentum}
    state = LearningState(build_model(spec), LearningSettings(step_items=1, optimizer=optimizer, **PLAIN))
    twin = nn.Linear(4, 3)
    nn.init.zeros_(twin.weight)
    nn.init.zeros_(twin.bias)
    textbook = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=momentum)
    known = items(50)
    for seq in range(1, 51):
        known[seq] = Item(known[seq].prepared, labels[seq % 3])
        state.update(state.plan([seq], known), known)
        features = state.model.encoder(state.model.collate([known[seq].prepared]))
        textbook.zero_grad()
        nn.functional.cross_entropy(twin(features), torch.tensor([seq % 3])).backward()
        textbook.step()
        assert torch.equal(state.model.head.experts.linear.weight, twin.weight)
        assert torch.equal(state.model.head.experts.linear.bias, twin.bias)


def test_a_weight_scales_an_items_pull() -> None:
    moved = []
    for weight in (0.1, 1.0):
        settings_ = LearningSettings(optimizer={"name": "sgd", "lr": 0.1}, **PLAIN)
        state = LearningState(noisy_model(), settings_)
        learn(state, {1: Item([0.0] * 4, "a"), 2: Item([0.0] * 4, "b")}, 1, 2)
        before = state.model.head.state_dict()["experts.linear.bias"].clone()
        state.update([Step((3,), ())], {3: Item([0.0] * 4, "a", weight)})
        moved.append((state.model.head.state_dict()["experts.linear.bias"] - before).norm().item())
    assert moved[1] == pytest.approx(10 * moved[0], rel=1e-3)


def test_what_is_served_is_the_mean_of_what_is_trained() -> None:
    known, state = items(40), LearningState(plain_model(), SETTINGS)
    learn(state, known, 1, 40)
    served = {name: parameter.detach().clone() for name, parameter in state.model.trainable()}
    with state.average.training():
        trained = {name: parameter.detach().clone() for name, parameter in state.model.trainable()}
    assert any(not torch.equal(served[name], trained[name]) for name in served)
    assert all(torch.equal(served[name], parameter) for name, parameter in state.model.trainable())


def test_an_update_that_makes_the_model_infinite_is_refused() -> None:
    state = LearningState(plain_model(), SETTINGS.model_copy(update={"optimizer": {"name": "sgd", "lr": 1e37}, "average": 0.0}))
    with pytest.raises(UpdateRefused, match="infinite or not a number"):
        learn(state, items(20), 1, 20)


def test_an_empty_update_makes_a_version_with_the_same_weights() -> None:
    known, state = items(10), LearningState(plain_model(), SETTINGS)
    learn(state, known, 1, 10)
    before = content(state)
    state.update([], {})
    assert content(state) == before
    assert state.updates == 3


def test_an_update_takes_no_part_of_a_frozen_encoder_along() -> None:
    spec = {
        "input": {"kind": "image", "size": 32},
        "encoder": {"name": "torchvision", "backbone": "mobilenet_v3_small", "weights": "none", "train": "head"},
        "head": {"name": "classification", "experts": ["linear"]},
    }
    state = LearningState(build_model(spec), SETTINGS)
    frozen = state.frozen_bytes()
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    learn(state, {seq: Item(pixels[seq - 1], f"{seq % 2}") for seq in range(1, 7)}, 1, 6)
    assert state.frozen_bytes() == frozen
    assert len(state.model_bytes()) < len(frozen) / 10


def test_a_frozen_encoder_looks_at_each_item_once() -> None:
    spec = {
        "input": {"kind": "image", "size": 32},
        "encoder": {"name": "torchvision", "backbone": "mobilenet_v3_small", "weights": "none", "train": "head"},
        "head": {"name": "classification", "experts": ["linear"]},
    }
    state = LearningState(build_model(spec), SETTINGS)
    seen: list[int] = []
    state.model.encoder.register_forward_hook(lambda *call: seen.append(len(call[-1])))
    pixels = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    learn(state, {seq: Item(pixels[seq - 1], f"{seq % 2}") for seq in range(1, 10)}, 1, 9)
    assert sum(seen) == 9


class Faint(Encoder):
    """A frozen encoder that says subnormal numbers, as the tail of a GELU does."""

    width = 4
    frozen = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(1e-20))

    def forward(self, batch: Batch) -> Tensor:
        return batch["numbers"].float() * self.factor * self.factor


def test_what_a_frozen_encoder_says_is_the_same_where_the_gate_has_looked_before() -> None:
    states = []
    for looks in (True, False):
        head = Classification(4, experts=["linear"], classes=["class 0", "class 1"])
        state = LearningState(OnlineModel(input=Vector(length=4), encoder=Faint(), head=head), LearningSettings())
        known = items(4)
        if looks:
            state.seen(known)
        learn(state, known, 1, 4)
        states.append(torch.stack([state.features[seq] for seq in sorted(known)]))
    assert states[0].numpy().tobytes() == states[1].numpy().tobytes()
