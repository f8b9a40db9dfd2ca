from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from models.base import OnlineModel
from models.errors import LabelError, SpecificationError
from models.registry import build_model, without_weights
from service.demo.dates import dates
from service.learning.update import Item, LearningState
from service.settings import LearningSettings
from tests.tiny_t5 import save_tiny_t5

STREAM = list(islice(dates(np.random.default_rng(0)), 320))
SETTINGS = LearningSettings(step_items=16, rehearse=1, average=0.9, optimizer={"name": "adam", "lr": 0.003})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_t5(tmp_path_factory.mktemp("t5"))


def spec(saved: Path, **options: object) -> dict[str, dict[str, object]]:
    head = {"name": "seq2seq", "model": str(saved), "max_tokens": 16, **options}
    return {"input": {"kind": "text"}, "encoder": {"name": "raw"}, "head": head}


def learn(state: LearningState, first: int, last: int) -> list[float]:
    """Learn from a part of the stream; return the log loss of each update's items before it."""
    items = {seq: Item(state.model.input.prepare(text), label) for seq, (text, label) in enumerate(STREAM, 1)}
    updates = [range(start, min(start + 16, last + 1)) for start in range(first, last + 1, 16)]
    return [state.update(state.plan(seqs, items), items)["log_loss"].mean().item() for seqs in updates]


def answers(model: OnlineModel, texts: list[str], top_k: int | None = None) -> list[dict[str, object]]:
    with torch.inference_mode():
        return model.head.answers(model(model.collate([model.input.prepare(text) for text in texts])), top_k)


@pytest.mark.parametrize("train", ["all", "lora"])
def test_a_random_t5_learns_from_labels_and_goes_on_from_its_saved_state_to_the_bit(saved: Path, train: str) -> None:
    whole = LearningState(build_model(spec(saved, train=train)), SETTINGS)
    frozen_before = whole.frozen_bytes()
    losses = learn(whole, 1, 320)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert whole.frozen_bytes() == frozen_before

    first, second = (LearningState(build_model(without_weights(spec(saved, train=train))), SETTINGS) for _ in range(2))
    initial = build_model(spec(saved, train=train))
    first.load(0, initial.state_dict(), LearningState(initial, SETTINGS).part_tensors())
    learn(first, 1, 160)
    frozen, live = first.model.split_state()
    second.load(first.updates, {**frozen, **live}, first.part_tensors())
    learn(second, 161, 320)
    assert second.model_bytes() == whole.model_bytes()
    assert second.learner_bytes() == whole.learner_bytes()


def test_adapters_leave_the_network_itself_alone_and_are_all_that_an_update_stores(saved: Path) -> None:
    state = LearningState(build_model(spec(saved, train="lora", rank=2)), SETTINGS)
    names = {name for name, _ in state.model.trainable()}
    assert names == state.model.split_state()[1].keys()
    assert all("parametrizations" in name for name in names)
    assert len(state.model_bytes()) < len(state.frozen_bytes()) / 4


def test_shared_tables_stay_shared_through_a_checkpoint(saved: Path) -> None:
    state = LearningState(build_model(spec(saved, train="all")), SETTINGS)
    learn(state, 1, 32)
    served = build_model(spec(saved, train="all", weights="none"))
    served.load_state_dict({**state.model.split_state()[0], **state.model.split_state()[1]}, assign=True)
    texts = [text for text, _ in STREAM[:4]]
    assert answers(served, texts) == answers(state.model, texts)


def test_alternatives_are_different_and_the_best_comes_first(saved: Path) -> None:
    state = LearningState(build_model(spec(saved, train="all")), SETTINGS)
    learn(state, 1, 96)
    alone, (answer, other) = answers(state.model, ["14 July 1989"]), answers(state.model, ["14 July 1989", "1 May 2000"], 4)
    listed = answer["alternatives"]
    assert isinstance(listed, list)
    assert listed[0] == {"text": answer["text"], "score": answer["score"]}
    assert len({each["text"] for each in listed}) == len(listed) > 1
    assert [each["score"] for each in listed] == sorted((each["score"] for each in listed), reverse=True)
    assert alone[0].keys() == {"text", "score"}
    assert isinstance(other["text"], str)


def test_the_score_is_the_mean_log_probability_of_the_tokens(saved: Path) -> None:
    state = LearningState(build_model(spec(saved, train="all")), SETTINGS)
    learn(state, 1, 320)
    model, texts = state.model, [text for text, _ in STREAM[:10]]
    # One that was not cut off: of the others the end, which the loss counts, was never written.
    text, answer = next(each for each in zip(texts, answers(model, texts), strict=True) if len(str(each[1]["text"])) < 15)
    with torch.inference_mode():
        outputs = model(model.collate([model.input.prepare(text)]))
        loss = model.head.log_losses(outputs, [answer["text"]])  # type: ignore[operator]  # it is a Writing head
    assert answer["score"] == pytest.approx(-loss.item(), abs=1e-4)


@pytest.mark.parametrize(("label", "says"), [("x" * 40, "41 tokens, the limit is 16"), ("\ud83d", "half a character")])
def test_a_label_that_can_not_be_written_is_refused(saved: Path, label: str, says: str) -> None:
    with pytest.raises(LabelError, match=says):
        build_model(spec(saved)).head.parse_label(label)


def test_what_can_not_be_loaded_is_told(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match=r"model.head.model.*can't be loaded"):
        build_model(spec(tmp_path / "nothing"))
    with pytest.raises(SpecificationError, match="takes texts, not vector"):
        build_model({**spec(saved), "input": {"kind": "vector", "length": 2}})
