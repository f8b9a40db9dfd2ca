from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sacrebleu.metrics import CHRF

from models.base import OnlineModel
from models.encoders.reading import Reader
from models.errors import LabelError, NotExplainable, SpecificationError
from models.inputs import Vector
from models.registry import build_model
from service.demo.dates import dates
from service.learning.update import Item, LearningState
from service.settings import LearningSettings

HEAD = {"name": "generation", "max_bytes": 24}
SPEC = {"input": {"kind": "text"}, "encoder": {"name": "reader"}, "head": HEAD}
SETTINGS = LearningSettings(step_items=8, rehearse=2, warm_up=4000, average=0.9, optimizer={"name": "adam", "lr": 0.002})


def built(**options: object) -> OnlineModel:
    return build_model({**SPEC, "head": {**HEAD, **options}}).eval()


def answers(model: OnlineModel, texts: list[str], top_k: int | None = None) -> list[dict[str, object]]:
    with torch.inference_mode():
        return model.head.answers(model(model.collate([model.input.prepare(text) for text in texts])), top_k)


def learn(state: LearningState, first: int, last: int) -> list[float]:
    stream = islice(dates(np.random.default_rng(0)), last)
    items = {seq: Item(state.model.input.prepare(text), label) for seq, (text, label) in enumerate(stream, 1)}
    exact: list[float] = []
    for start in range(first, last + 1, 8):
        seqs = range(start, min(start + 8, last + 1))
        exact += state.update(state.plan(seqs, items), items)["exact"].tolist()
    return exact


@pytest.fixture(scope="module")
def taught() -> LearningState:
    """Return a state that has learned to write dates."""
    state = LearningState(built(), SETTINGS)
    learn(state, 1, 960)
    return state


def test_dates_in_five_formats_are_learned(taught: LearningState) -> None:
    fresh = list(islice(dates(np.random.default_rng(1)), 100))
    found = answers(taught.model, [text for text, _ in fresh])
    assert sum(answer["text"] == label for answer, (_, label) in zip(found, fresh, strict=True)) > 90
    assert taught.metrics()["window"].keys() >= {"exact", "chrf", "log_loss"}


def test_it_goes_on_from_its_saved_state_to_the_bit() -> None:
    whole, first = LearningState(built(), SETTINGS), LearningState(built(), SETTINGS)
    learn(whole, 1, 80)
    learn(first, 1, 40)
    second = LearningState(built(), SETTINGS)
    frozen, live = first.model.split_state()
    tensors = first.part_tensors()
    second.load(first.updates, {**frozen, **live}, tensors)
    learn(second, 41, 80)
    assert second.model_bytes() == whole.model_bytes()
    assert second.learner_bytes() == whole.learner_bytes()


@settings(max_examples=15)
@given(texts=st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_an_answer_does_not_hang_on_its_neighbours_in_the_batch(taught: LearningState, texts: list[str]) -> None:
    model = taught.model
    texts = [text.encode(errors="ignore").decode() for text in texts]
    for text, together in zip(texts, answers(model, texts), strict=True):
        (alone,) = answers(model, [text])
        assert alone["text"] == together["text"]
        assert alone["score"] == pytest.approx(together["score"], abs=1e-3)


def test_a_text_ends_at_its_limit_even_where_nothing_was_learned() -> None:
    for answer in answers(built(max_bytes=5), ["anything", ""], 3):
        assert len(str(answer["text"])) <= 5
        assert isinstance(answer["alternatives"], list)


def test_alternatives_are_different_and_the_best_comes_first(taught: LearningState) -> None:
    (answer,) = answers(taught.model, ["14 July 1989"], 4)
    listed = answer["alternatives"]
    assert isinstance(listed, list)
    assert listed[0] == {"text": answer["text"], "score": answer["score"]}
    assert len({each["text"] for each in listed}) == len(listed) == 4
    assert [each["score"] for each in listed] == sorted((each["score"] for each in listed), reverse=True)


def test_scores_are_exact_match_and_chrf_and_judge_agrees(taught: LearningState) -> None:
    head = (model := taught.model).head
    texts, labels = ["14 July 1989", "1 May 2000"], ["1989-07-15", ""]
    with torch.no_grad():
        outputs = model(model.collate([model.input.prepare(text) for text in texts]))
        scores, said = head.scores(outputs, labels), head.answers(outputs, 1)
    assert scores["exact"].tolist() == [0, 0]
    assert scores["chrf"][0].item() == pytest.approx(CHRF().sentence_score(said[0]["text"], labels[:1]).score / 100)
    assert scores["chrf"][1].item() == 0
    for row, answer in enumerate(said):
        judged = head.judge(head.kept(answer), labels[row])
        assert judged == pytest.approx({name: scores[name][row].item() for name in judged})


@pytest.mark.parametrize(
    ("label", "says"), [("x" * 25, "25 bytes, the limit is 24"), ("ä" * 13, "26 bytes"), ("\ud83d", "half a")]
)
def test_a_label_that_can_not_be_written_is_refused(label: str, says: str) -> None:
    with pytest.raises(LabelError, match=says):
        built().head.parse_label(label)


def test_what_it_can_not_do_is_told() -> None:
    with pytest.raises(NotExplainable):
        built().head.explained(None, None)
    with pytest.raises(SpecificationError, match="reader takes text inputs, not vector"):
        Reader(Vector(length=2))
    with pytest.raises(SpecificationError, match="takes read texts"):
        build_model({**SPEC, "encoder": {"name": "text"}})
