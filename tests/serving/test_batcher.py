from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import torch

from models.base import OnlineModel
from models.registry import build_model
from service.serving.batcher import Batcher, Overloaded
from service.serving.engine import Answers, Engine, NotReady, Question
from tests.serving.blocking import Gate, gated_model

SPEC = {
    "input": {"kind": "vector", "length": 2},
    "encoder": {"name": "tabular", "hidden": [4]},
    "head": {"name": "classification", "classes": ["a", "b"]},
}


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def engine(gate: Gate) -> Iterator[Engine]:
    engine = Engine(gated_model(gate))
    yield engine
    gate.opened.set()
    engine.close()


def question(*numbers: float, top_k: int | None = None) -> Question:
    return Question([[number, 0.0] for number in numbers], top_k)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_what_queued_while_the_engine_was_busy_is_the_next_batch(engine: Engine, gate: Gate) -> None:
    async def scenario() -> list[Answers]:
        batcher = Batcher(engine, batch=8, queue=100, deadline=10)
        first = batcher.submit(question(0))
        await asyncio.to_thread(gate.entered.wait)
        rest = [batcher.submit(question(number)) for number in range(1, 12)]
        gate.opened.set()
        return await asyncio.gather(first, *rest)

    answers = run(scenario())
    assert gate.batches == [1, 8, 3]
    assert len(answers) == 12
    assert all(len(answer.answers) == 1 for answer in answers)


def test_each_question_gets_its_own_answers_in_its_own_order(engine: Engine, gate: Gate) -> None:
    gate.opened.set()

    async def scenario() -> list[Answers]:
        batcher = Batcher(engine, batch=5, queue=1000, deadline=10)
        return await asyncio.gather(*(batcher.submit(question(*range(n), top_k=1 + n % 2)) for n in range(1, 20)))

    answers = run(scenario())
    model = build_model(SPEC, seed=0).eval()
    for count, answer in enumerate(answers, 1):
        batch = model.collate([[float(number), 0.0] for number in range(count)])
        with torch.inference_mode():
            alone = model.head.answers(model(batch), 1 + count % 2)
        assert [given["label"] for given in answer.answers] == [given["label"] for given in alone]
        assert [len(given["scores"]) for given in answer.answers] == [1 + count % 2] * count


def test_a_cancelled_question_costs_no_compute(engine: Engine, gate: Gate) -> None:
    async def scenario() -> None:
        batcher = Batcher(engine, batch=8, queue=100, deadline=10)
        first = batcher.submit(question(0))
        await asyncio.to_thread(gate.entered.wait)
        rest = [batcher.submit(question(number)) for number in range(6)]
        for answers in rest[:5]:
            answers.cancel()
        gate.opened.set()
        await first
        await rest[5]

    run(scenario())
    assert gate.batches == [1, 1]


def test_a_full_queue_refuses_and_one_large_question_is_still_taken(engine: Engine, gate: Gate) -> None:
    async def scenario() -> None:
        batcher = Batcher(engine, batch=8, queue=4, deadline=10)
        first = batcher.submit(question(0))
        await asyncio.to_thread(gate.entered.wait)
        large = batcher.submit(question(*range(10)))
        with pytest.raises(Overloaded, match="full"):
            batcher.submit(question(1))
        gate.opened.set()
        await first
        assert len((await large).answers) == 10
        await batcher.submit(question(1))

    run(scenario())


def test_each_question_is_refused_at_its_own_deadline(engine: Engine, gate: Gate) -> None:
    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        batcher = Batcher(engine, batch=1, queue=100, deadline=0.4)

        async def refused_after(number: int) -> float:
            await asyncio.sleep(0.2 * number)
            asked = loop.time()
            with pytest.raises(Overloaded, match="deadline"):
                await batcher.submit(question(number))
            return loop.time() - asked

        waited = await asyncio.gather(*(refused_after(number) for number in range(4)))
        gate.opened.set()
        return waited

    assert all(0.39 < seconds < 5 for seconds in run(scenario()))


def test_a_question_whose_turn_does_not_come_in_time_is_refused_and_never_computed(engine: Engine, gate: Gate) -> None:
    async def scenario() -> None:
        batcher = Batcher(engine, batch=8, queue=100, deadline=0.1)
        first = batcher.submit(question(0))
        await asyncio.to_thread(gate.entered.wait)
        with pytest.raises(Overloaded, match="deadline"):
            await batcher.submit(question(1))
        gate.opened.set()
        with pytest.raises(Overloaded):
            await first
        await asyncio.sleep(0.1)
        await batcher.submit(question(2))

    run(scenario())
    assert gate.batches == [1, 1]


def test_a_batch_that_fails_fails_its_questions_and_no_others(engine: Engine, gate: Gate) -> None:
    gate.opened.set()

    async def scenario() -> None:
        batcher = Batcher(engine, batch=8, queue=100, deadline=10)
        with pytest.raises(RuntimeError, match="asked to fail"):
            await batcher.submit(question(-1))
        await batcher.submit(question(1))

    run(scenario())


def test_before_any_class_is_known_the_answer_is_not_ready() -> None:
    engine = Engine(build_model({**SPEC, "head": {"name": "classification"}}))

    async def scenario() -> None:
        with pytest.raises(NotReady):
            await Batcher(engine, batch=8, queue=100, deadline=10).submit(question(1))

    run(scenario())
    engine.close()


def test_the_event_loop_goes_on_while_a_batch_computes(engine: Engine, gate: Gate) -> None:
    async def scenario() -> int:
        batcher = Batcher(engine, batch=8, queue=100, deadline=10)
        answers = batcher.submit(question(0))
        turns = 0
        while not answers.done():
            await asyncio.sleep(0.001)
            turns += 1
            if turns == 20:
                gate.opened.set()
        return turns

    assert run(scenario()) >= 20
    assert threading.active_count() < 50
    assert isinstance(engine._model, OnlineModel)
