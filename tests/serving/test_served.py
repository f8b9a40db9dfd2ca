from __future__ import annotations

import asyncio

from service.serving.served import Served, Serving
from tests.contract.test_checkpoint_store import version


def serving(number: int, last_seq: int) -> Serving:
    return Serving(version(number, {"frozen": "", "model": "", "learner": ""}, 1, last_seq), ["a"], {})


def test_a_version_that_contains_the_item_already_answers_at_once() -> None:
    async def scenario() -> int | None:
        served = Served()
        served.publish(serving(3, 10))
        return await served.contains(10, 0.0)

    assert asyncio.run(scenario()) == 3


def test_many_wait_each_for_the_first_version_that_contains_its_item() -> None:
    async def scenario() -> list[int | None]:
        served = Served()
        waiting = [asyncio.ensure_future(served.contains(seq, 5)) for seq in (1, 2, 5, 6)]
        for number, last_seq in ((1, 2), (2, 4), (3, 6)):
            await asyncio.sleep(0)
            served.publish(serving(number, last_seq))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*waiting)

    assert asyncio.run(scenario()) == [1, 1, 3, 3]


def test_who_waits_too_long_gets_none() -> None:
    async def scenario() -> int | None:
        served = Served()
        served.publish(serving(1, 1))
        return await served.contains(2, 0.05)

    assert asyncio.run(scenario()) is None


def test_draining_lets_everybody_go() -> None:
    async def scenario() -> int | None:
        served = Served()
        waiting = asyncio.ensure_future(served.contains(2, 30))
        await asyncio.sleep(0.01)
        served.drain()
        return await asyncio.wait_for(waiting, 1)

    assert asyncio.run(scenario()) is None
