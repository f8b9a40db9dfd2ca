from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import roc_auc_score

from models.base import OnlineModel
from models.errors import InstanceError, LabelError, SpecificationError
from models.exploration import explored, off_policy
from models.interactions import Interactions
from models.metrics import auc
from models.registry import build_model
from service.demo.shop import Choice, Product, Shop
from service.learning.update import Declaration, Item, LearningState
from service.settings import LearningSettings
from tests.models.encoders.test_text import MINILM

SETTINGS = LearningSettings(optimizer={"name": "adam", "lr": 0.01})
HEADS = ("choices", "clicks", "ratings")
LABELS = {"choices": "i1", "clicks": True, "ratings": 3.5}


def built(head: str = "choices", **options: Any) -> OnlineModel:
    return build_model({"input": {"kind": "interaction"}, "encoder": {"name": "raw"}, "head": {"name": head, **options}})


def answers(model: OnlineModel, instances: list[Any], top_k: int | None = None) -> list[dict[str, Any]]:
    prepared = [model.input.prepare(model.input.parse(instance)) for instance in instances]
    with torch.inference_mode():
        return model.head.answers(model(model.collate(prepared)), top_k)


def learn(state: LearningState, stream: list[tuple[Any, Any]], first: int = 1, last: int | None = None) -> None:
    items = {seq: Item(state.model.input.prepare(instance), label) for seq, (instance, label) in enumerate(stream, 1)}
    last = last or len(stream)
    for start in range(first, last + 1, 4):
        state.update(state.plan(range(start, min(start + 4, last + 1)), items), items)


def stream_of(head: str, count: int) -> list[tuple[Any, Any]]:
    """Return a stream in which users like the items whose number has their own's remainder by 3."""
    rng = np.random.default_rng(0)
    stream: list[tuple[Any, Any]] = []
    for _ in range(count):
        user, item = int(rng.integers(30)), int(rng.integers(60))
        likes = user % 3 == item % 3
        if head == "choices":
            stream.append(({"user": f"u{user}"}, f"i{3 * (item // 3) + user % 3}"))
        else:
            label = likes if head == "clicks" else 4.0 * likes + rng.normal(0, 0.1)
            stream.append(({"user": f"u{user}", "item": f"i{item}", "context": {"page": 1 + item % 2}}, label))
    return stream


@pytest.mark.parametrize("head", HEADS)
def test_tastes_are_learned(head: str) -> None:
    state = LearningState(built(head), SETTINGS)
    learn(state, stream_of(head, 2000))
    for user in range(6):
        (answer,) = answers(state.model, [{"user": f"u{user}"}], 10)
        assert sum(int(item[1:]) % 3 == user % 3 for item in answer["items"]) >= 9
    window = state.metrics()["window"]
    if head == "choices":
        assert window["hit"] > 0.4  # each user likes 20 items alike, of which ten are half
    if head == "clicks":
        assert window["auc"] > 0.85
    if head == "ratings":
        assert window["mae"] < 1.0


@pytest.mark.parametrize("head", HEADS)
def test_it_goes_on_from_its_saved_state_to_the_bit(head: str) -> None:
    whole, first, second = (LearningState(built(head), SETTINGS) for _ in range(3))
    stream = stream_of(head, 120)
    for state in (whole, first):
        state.declare([Declaration("new", ("a red kite",))])
    learn(whole, stream)
    learn(first, stream, 1, 60)
    frozen, live = first.model.split_state()
    second.load(first.updates, {**frozen, **live}, first.part_tensors())
    learn(second, stream, 61, 120)
    assert second.model_bytes() == whole.model_bytes()
    assert second.learner_bytes() == whole.learner_bytes()


def test_a_described_item_is_recommended_to_those_who_like_its_kind_before_anybody_chose_it() -> None:
    shop = Shop(np.random.default_rng(0))
    state = LearningState(built(), SETTINGS)
    stream: list[tuple[Any, Any]] = []
    for events in shop.days(14):
        products = [event for event in events if isinstance(event, Product)]
        state.declare([Declaration(each.name, (each.description,)) for each in products])
        before = len(stream)
        stream += [({"user": each.user}, each.item) for each in events if isinstance(each, Choice)]
        learn(state, stream, before + 1)
    state.declare([Declaration("the new one", ("a new kite",))])
    tops = answers(state.model, [{"user": f"u{user}"} for user in range(len(shop.tastes))], 10)
    shown = np.array(["the new one" in top["items"] for top in tops])
    likes = np.array(["kite" in shop.liked(user) for user in range(len(shop.tastes))])
    assert shown[likes].mean() > 0.4
    assert shown[likes].mean() > 5 * shown[~likes].mean()


@pytest.mark.parametrize("head", HEADS)
def test_candidates_are_ranked_and_no_others_not_even_unknown_ones_are_left_out(head: str) -> None:
    state = LearningState(built(head), SETTINGS)
    learn(state, stream_of(head, 200))
    candidates = ["i4", "i5", "never seen", "i6"]
    (answer, top, one) = answers(
        state.model, [{"user": "u1", "candidates": candidates}, {"user": "nobody"}, {"user": "u1", "item": "i4"}], 3
    )
    assert len(answer["items"]) == 3
    assert set(answer["items"]) <= set(candidates)
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert len(top["items"]) == 3
    assert one["items"] == ["i4"]
    assert (top["propensities"], one["propensities"]) == ([1.0] * 3, [1.0])


def test_the_catalogue_is_searched_exactly() -> None:
    state = LearningState(built(), SETTINGS)
    learn(state, stream_of("choices", 400))
    everything = [f"i{item}" for item in range(60)]
    known = [name for name in everything if name in state.model.head.labels]
    best, among = answers(state.model, [{"user": "u2"}, {"user": "u2", "candidates": known}], 10)
    assert best["items"] == among["items"]
    assert best["scores"] == pytest.approx(among["scores"], rel=1e-4)


@pytest.mark.parametrize("top_k", [3, 5])
def test_each_item_stands_in_its_place_as_often_as_its_propensity_says(top_k: int) -> None:
    random.seed(0)
    told: dict[tuple[int, int], float] = {}
    found: Counter[tuple[int, int]] = Counter()
    for _ in range(20_000):
        order, propensities = explored(list(range(top_k)), 5, 0.5)
        found.update(enumerate(order))
        told |= dict(zip(enumerate(order), propensities, strict=True))
    for place in range(top_k):
        assert sum(propensity for (where, _), propensity in told.items() if where == place) == pytest.approx(1.0)
    for where, propensity in told.items():
        assert found[where] / 20_000 == pytest.approx(propensity, abs=0.015)


def test_exploring_brings_every_item_up_and_comparing_versions_none() -> None:
    random.seed(0)
    state = LearningState(built(explore=0.5), SETTINGS)
    learn(state, stream_of("choices", 200))
    instances = [{"user": "u1", "candidates": ["i1", "i2", "i3", "i4"]}] * 100
    assert len({answer["items"][0] for answer in answers(state.model, instances)}) == 4
    with torch.inference_mode():
        outputs = state.model(state.model.collate([state.model.input.prepare(instance) for instance in instances]))
        assert len({answer["items"][0] for answer in state.model.head.settled(outputs)}) == 1


def test_answers_that_explored_tell_what_the_best_items_would_have_earned() -> None:
    rng, worth = np.random.default_rng(0), {1: 0.2, 2: 0.6, 3: 0.4}
    shown = np.where(rng.random(20_000) < 0.3, rng.integers(1, 4, 20_000), 1)
    columns = {
        "greedy": np.full(20_000, 2.0),
        "shown": shown.astype(float),
        "propensity": np.where(shown == 1, 0.8, 0.1),
        "reward": (rng.random(20_000) < np.vectorize(worth.get)(shown)).astype(float),
    }
    found = off_policy({name: torch.from_numpy(column) for name, column in columns.items()})
    assert found == pytest.approx(0.6, abs=0.04)
    columns["propensity"] = np.ones(20_000)
    assert math.isnan(off_policy({name: torch.from_numpy(column) for name, column in columns.items()}))  # no rankings


def test_what_nobody_knew_when_it_was_best_tells_nothing_of_what_the_best_earns() -> None:
    state = LearningState(built(explore=0.5), SETTINGS)
    learn(state, [({"user": "u1"}, "i1")])
    rng = np.random.default_rng(0)
    items = {}
    for seq in range(2, 82):
        pair = [f"a{seq}", f"b{seq}"]
        kept = {"items": pair, "scores": [0.5, 0.5], "propensity": 0.75}
        label = pair[int(rng.random() < 0.4)]
        items[seq] = Item(state.model.input.prepare({"user": "u1", "candidates": pair}), label, answer=kept)
        known = {1: Item(state.model.input.prepare({"user": "u1"}), "i1"), **items}
        state.update(state.plan([seq], known), known)
    assert state.metrics()["window"]["ips_reward"] is None


def test_what_is_equally_good_shares_the_places_it_takes() -> None:
    state = LearningState(built(), SETTINGS)
    learn(state, [({"user": "u1"}, "i1")])
    batch = state.model.collate([state.model.input.prepare({"user": "u1", "candidates": ["a", "b", "c"]})])
    with torch.no_grad():
        scores = state.model.head.scores(state.model(batch), ["c"])
    assert scores["ndcg"].item() == pytest.approx(1 / math.log2(3))


def test_a_choice_between_candidates_is_learned_however_large_the_catalogue_is() -> None:
    state = LearningState(built(popularity=0.0), SETTINGS)
    with torch.no_grad():
        state.model.head.admit([f"i{number}" for number in range(20_000)])
    state.model.head.met[:] = True
    state._follow()
    pairs = [({"user": "u1", "candidates": [f"i{n}", f"i{n + 1}"]}, f"i{n + 1}") for n in range(0, 40, 2)]
    learn(state, pairs * 5)
    tops = answers(state.model, [instance for instance, _ in pairs])
    assert [top["items"][0] for top in tops] == [label for _, label in pairs]


def test_a_label_is_judged_by_the_answer_that_was_served() -> None:
    listed = {"items": [f"i{n}" for n in range(10)], "scores": [0.1] * 10, "propensities": [1.0] * 10}
    choices, clicks, ratings = (built(head).head for head in HEADS)
    kept = choices.kept(listed)
    assert choices.judge(kept, "i2")["ndcg"] == 0.5
    assert choices.judge(kept, "other")["ndcg"] == 0
    assert "ndcg" not in choices.judge({**kept, "items": ["i1"], "scores": [1.0]}, "i1")  # it was all that was asked for
    assert clicks.judge(kept, {"item": "i3", "value": True})["log_loss"] == pytest.approx(-math.log(0.1))
    assert clicks.judge(kept, False)["accuracy"] == 1
    assert "log_loss" not in clicks.judge(kept, {"item": "other", "value": True})
    assert ratings.judge(kept, {"item": "i3", "value": 3.1})["mae"] == pytest.approx(3.0)


def test_a_weight_counts_in_what_is_popular() -> None:
    state = LearningState(built(), SETTINGS)
    prepared = state.model.input.prepare({"user": "u1"})
    items = {1: Item(prepared, "i1", weight=5.0), 2: Item(prepared, "i2")}
    state.update(state.plan([1, 2], items), items)
    assert state.model.head.counts.tolist() == pytest.approx([5.0, 1.0], rel=1e-3)


def test_a_sentence_model_reads_descriptions_that_share_no_word() -> None:
    state = LearningState(built(descriptions=MINILM), SETTINGS)
    kinds = {
        "book": ("a novel", "paperback fiction", "poems to read", "short stories"),
        "pan": ("a frying skillet", "kitchen cookware", "one wok", "steel teapot"),
    }
    told = [(f"{kind}{number}", text) for kind, texts in kinds.items() for number, text in enumerate(texts)]
    state.declare([Declaration(name, (text,)) for name, text in told])
    rng = np.random.default_rng(0)
    likes = {f"u{user}": ("book", "pan")[user % 2] for user in range(10)}
    learn(state, [({"user": user}, f"{kind}{rng.integers(4)}") for _ in range(40) for user, kind in likes.items()])
    state.declare([Declaration("new book", ("hardcover thriller",)), Declaration("new pan", ("large saucepan",))])
    fans = answers(state.model, [{"user": user, "candidates": ["new book", "new pan"]} for user in likes])
    assert [fan["items"][0] for fan in fans] == [f"new {kind}" for kind in likes.values()]


def test_clicks_on_explored_answers_are_judged_by_their_propensity() -> None:
    state = LearningState(built(explore=0.5), SETTINGS)
    stream = stream_of("choices", 200)
    learn(state, stream)
    head = state.model.head
    items = {}
    for seq, (instance, label) in enumerate(stream, 1):
        (answer,) = answers(state.model, [instance])
        items[200 + seq] = Item(state.model.input.prepare(instance), label, answer=head.kept(answer))
    state.update(
        state.plan(sorted(items), items),
        {**items, **{s: Item(state.model.input.prepare(i), la) for s, (i, la) in enumerate(stream, 1)}},
    )
    assert 0 < state.metrics()["window"]["ips_reward"] < 1


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_under_the_curve_is_sklearns(rows: list[tuple[int, bool]]) -> None:
    scores, clicked = np.array([score for score, _ in rows]), np.array([click for _, click in rows])
    found = auc(torch.from_numpy(scores).double(), torch.from_numpy(clicked).double())
    if clicked.all() or not clicked.any():
        assert math.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(clicked, scores))


@pytest.mark.parametrize("head", HEADS)
def test_users_that_come_too_late_are_nobody_known_and_items_are_refused(head: str) -> None:
    state = LearningState(built(head, max_users=2, max_items=3), SETTINGS)
    named = head == "choices"
    asked: list[dict[str, Any]] = [{"user": f"u{n}", **({} if named else {"item": "i1"})} for n in range(4)]
    learn(state, [(instance, LABELS[head]) for instance in asked])
    assert state.model.head.describe()["users"] == 2
    late, stranger = answers(state.model, [asked[3], {**asked[3], "user": "never seen"}])
    assert late["scores"] == stranger["scores"]
    with pytest.raises(LabelError, match="max_items = 3"):
        learn(state, [({"user": "u1", "item": f"x{n}"}, LABELS[head] if not named else f"x{n}") for n in range(4)])


@pytest.mark.parametrize("head", ["clicks", "ratings"])
def test_a_label_may_name_the_item_and_must_where_the_instance_does_not(head: str) -> None:
    state = LearningState(built(head), SETTINGS)
    ranked = {"user": "u1", "candidates": ["i1", "i2"]}
    learn(state, [(ranked, {"item": "i2", "value": LABELS[head]})])
    assert state.model.head.labels == ["i2"]
    with pytest.raises(LabelError, match="must name"):
        learn(state, [(ranked, LABELS[head])])
    with pytest.raises(LabelError, match="must name"):
        state.model.head.check_label(LABELS[head], lambda: ranked)
    state.model.head.check_label({"item": "i1", "value": LABELS[head]}, lambda: ranked)
    for instance in (ranked, {"user": "u1", "item": "i1"}):
        with pytest.raises(LabelError, match="not what was asked for") as refused:
            state.model.head.check_label({"item": "other", "value": LABELS[head]}, lambda asked=instance: asked)
        assert refused.value.pointer == "/item"
    with pytest.raises(ValidationError, match="extra_forbidden"):
        TypeAdapter(state.model.head.label_type).validate_python({"item": "i1", "value": LABELS[head], "more": 1})


def test_what_was_no_candidate_was_not_chosen() -> None:
    head = built().head
    with pytest.raises(LabelError, match="'c' is not one of the candidates"):
        head.check_label("c", lambda: {"user": "u1", "candidates": ["a", "b"]})
    for instance in ({"user": "u1"}, {"user": "u1", "item": "a"}, {"user": "u1", "candidates": ["b", "c"]}):
        head.check_label("c", lambda asked=instance: asked)


def test_what_is_no_interaction_is_refused() -> None:
    kind = Interactions(max_candidates=2)
    for value, says in (
        ({"user": "u", "item": "i", "candidates": ["i"]}, "not both"),
        ({"user": "u", "candidates": ["a", "b", "c"]}, "the limit is 2"),
        ({"user": "u", "candidates": ["a", "a"]}, "twice"),
    ):
        with pytest.raises(InstanceError, match=says):
            kind.parse(value)
    with pytest.raises(SpecificationError, match="takes interaction, not text"):
        build_model({"input": {"kind": "text"}, "encoder": {"name": "raw"}, "head": {"name": "choices"}})


def test_descriptions_of_an_item_are_checked() -> None:
    head = built(max_items=1).head
    with pytest.raises(LabelError, match="no word"):
        head.check_class("i1", [" "])
    with pytest.raises(LabelError, match="the limit is 32"):
        head.check_class("i1", ["word " * 33])
    head.admit(["i0"])
    with pytest.raises(LabelError, match="max_items = 1"):
        head.check_class("i1", [])
