from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score

from models.errors import LabelError
from models.heads.multilabel import MultiLabel
from models.registry import build_model
from service.learning.update import Item, LearningState
from service.settings import LearningSettings

SPEC = {"input": {"kind": "vector", "length": 6}, "encoder": {"name": "tabular"}, "head": {"name": "multilabel"}}
NAMES = ("a", "b", "c", "rare")


def stream(count: int) -> dict[int, Item]:
    """Return items of which each class is true by its own rule, several at once, or none."""
    numbers = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
    rules = torch.stack([numbers[:, 0] > 0, numbers[:, 1] + numbers[:, 2] > 0.5, numbers[:, 3] > 1, numbers[:, 4] > 1.6], 1)
    return {
        seq: Item(row, [name for name, true in zip(NAMES, held, strict=True) if true])
        for seq, (row, held) in enumerate(zip(numbers.tolist(), rules.tolist(), strict=True), 1)
    }


def learned(count: int) -> tuple[LearningState, list[float]]:
    state, items = LearningState(build_model(SPEC), LearningSettings()), stream(count)
    scores: list[float] = []
    for first in range(1, count, 8):
        scores += state.update(state.plan(range(first, first + 8), items), items)["f1"].tolist()
    return state, scores


def test_several_classes_are_learned_at_once_and_none_is_an_answer_too() -> None:
    state, scores = learned(1600)
    assert sum(scores[-400:]) / 400 > 0.9  # the same labels for all give 0.57 at best
    window = state.metrics()["window"]
    assert window["micro_f1"] > 0.9
    answers = state.model.head.answers(state.model(state.model.collate([[-2.0] * 6, [2.0] * 6])), 2)
    assert answers[0]["labels"] == []
    assert {"a", "b", "c"} <= set(answers[1]["labels"])
    assert len(answers[1]["scores"]) == 2


def test_it_goes_on_from_its_saved_state_to_the_bit() -> None:
    state, _ = learned(400)
    other = LearningState(build_model(SPEC), LearningSettings())
    assert learned(400)[0].model_bytes() == state.model_bytes()
    frozen, live = state.model.split_state()
    other.model.load_state_dict({**frozen, **live})
    assert other.model.head.labels == state.model.head.labels
    assert other.model_bytes() == state.model_bytes()


def test_scores_are_those_of_scikit_learn_and_judge_agrees() -> None:
    state, _ = learned(400)
    head, model = state.model.head, state.model
    items = list(stream(60).values())
    with torch.no_grad():
        outputs = model(model.collate([item.prepared for item in items]))
    labels = [item.label for item in items]
    scores = head.scores(outputs, labels)
    answers = head.answers(outputs, None)
    true, said = ([[name in names for name in NAMES] for names in sets] for sets in (labels, [a["labels"] for a in answers]))
    columns = {**scores, "target": head.targets(labels)}
    assert head.summarise(columns)["micro_f1"] == pytest.approx(f1_score(true, said, average="micro"))
    assert scores["f1"].mean().item() == pytest.approx(f1_score(true, said, average="samples", zero_division=1.0))
    for row, (answer, label) in enumerate(zip(answers, labels, strict=True)):
        judged = head.judge(head.kept(answer), label)
        assert judged == pytest.approx({name: scores[name][row].item() for name in judged})


def test_a_new_class_starts_as_rare_and_leaves_the_others_as_they_are() -> None:
    state, _ = learned(400)
    head = state.model.head
    batch = state.model.collate([[0.5] * 6])
    before = head.answers(state.model(batch), None)[0]
    head.admit([["new"]])
    after = head.answers(state.model(batch), None)[0]
    assert after["scores"].pop("new") < 0.05
    assert after == before


def test_a_class_can_be_named_before_its_first_label() -> None:
    head = MultiLabel(6)
    head.declare("delivery", [], lambda texts: torch.zeros(len(texts), 1))
    head.admit([["damage", "delivery"], []])
    assert head.labels == ["delivery", "damage"]


def test_labels_are_checked_and_an_empty_first_label_is_learned_from() -> None:
    head = MultiLabel(6)
    assert head.parse_label(["b", "a"]) == ["a", "b"]
    with pytest.raises(LabelError, match="'a' is there twice") as refused:
        head.parse_label(["a", "b", "a"])
    assert refused.value.pointer == "/2"
    state = LearningState(build_model(SPEC), LearningSettings())
    items = {1: Item([0.0] * 6, []), 2: Item([1.0] * 6, ["a"]), 3: Item([0.0] * 6, [])}
    for seq in items:
        state.update(state.plan([seq], items), items)
    assert state.metrics()["items"] == 3


def test_one_class_is_explained_by_its_log_odds() -> None:
    state, _ = learned(400)
    head = state.model.head
    outputs = state.model(state.model.collate([[2.0] * 6]))
    answer = head.answers(outputs, None)[0]
    assert head.explained(outputs, "a").sigmoid().item() == pytest.approx(answer["scores"]["a"], rel=1e-4)
    assert head.explained(outputs, ["a"]).item() == head.explained(outputs, head.foremost({"scores": {"a": 1}})).item()
    for wrong in (None, [], ["a", "b"], "nobody"):
        with pytest.raises(LabelError):
            head.explained(outputs, wrong)


def test_who_can_speak_of_a_class_is_known_as_soon_as_it_was_seen() -> None:
    head = MultiLabel(4, hidden=[8])
    head.admit([["a"], ["b"]])
    assert not head.awake.any()
    head.observe(torch.zeros(1, 4), None, [["a"]], torch.ones(1))
    assert head.awake.tolist() == [[True, False]] * len(head.experts)
