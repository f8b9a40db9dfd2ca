from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from models.registry import build_model
from service.serving.batcher import Overloaded
from service.serving.examiner import NICE, Examiner, Spare, Withdrawn
from tests.serving.blocking import SPEC


@pytest.fixture
def examiner() -> Examiner:
    return Examiner(lambda: build_model(SPEC), None, queue=1)  # type: ignore[arg-type]  # these jobs ask for no version


def held(entered: threading.Event, opened: threading.Event) -> Callable[[Spare], str]:
    def job(spare: Spare) -> str:
        entered.set()
        while not opened.wait(0.01):
            spare.check()
        return "done"

    return job


def test_a_job_that_fails_says_why_and_the_next_one_is_done(examiner: Examiner) -> None:
    def fail(_: Spare) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        examiner.submit(fail).result(10)
    assert examiner.submit(lambda _: 3).result(10) == 3
    examiner.close()


def test_a_queue_that_is_full_refuses_and_has_room_again_later(examiner: Examiner) -> None:
    entered, opened = threading.Event(), threading.Event()
    first, second = (examiner.submit(held(entered, opened)) for _ in range(2))
    with pytest.raises(Overloaded):
        examiner.submit(lambda _: 3)
    opened.set()
    assert (first.result(10), second.result(10)) == ("done", "done")
    assert examiner.submit(lambda _: 3).result(10) == 3
    examiner.close()


def test_a_job_that_nobody_waits_for_ends_at_its_next_batch(examiner: Examiner) -> None:
    entered, never = threading.Event(), threading.Event()
    first = examiner.submit(held(entered, never))
    assert entered.wait(10)
    assert first.cancel()
    assert examiner.submit(lambda _: 3).result(10) == 3
    examiner.close()


def test_closing_ends_what_runs(examiner: Examiner) -> None:
    entered, never = threading.Event(), threading.Event()
    job = examiner.submit(held(entered, never))
    assert entered.wait(10)
    examiner.close()
    with pytest.raises(Withdrawn):
        job.result(10)


def test_its_thread_has_a_low_priority_and_no_other_has(examiner: Examiner) -> None:
    own = examiner.submit(lambda _: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result(10)
    assert own == NICE
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < NICE
    examiner.close()
