"""The batcher: what has queued while the engine was busy is its next batch, with no artificial wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from service import metrics
from service.serving.engine import Answers, Engine, NotReady, Question


class Overloaded(Exception):
    """The predict queue is full, or the prediction's turn did not come before its deadline."""


class _Ticket(NamedTuple):
    question: Question
    answers: asyncio.Future[Answers]
    submitted: float


class Batcher:
    """Gathers questions on the event loop. At most `queue` instances wait; a batch holds `batch`, or one question."""

    def __init__(self, engine: Engine, *, batch: int, queue: int, deadline: float) -> None:
        self._engine = engine
        self._batch = batch
        self._queue = queue
        self._deadline = deadline
        self._waiting: deque[_Ticket] = deque()
        self._waiting_instances = 0
        self._unanswered: deque[_Ticket] = deque()
        self._timer: asyncio.TimerHandle | None = None  # one for all: the deadlines come in the order of the tickets
        self._busy = False
        self._told = 0  # how many wait, as the metrics have it

    def submit(self, question: Question) -> asyncio.Future[Answers]:
        """Queue a question. Cancel the future to withdraw it: it then costs no compute.

        The future raises NotReady, or Overloaded at its deadline. Raises Overloaded at once where the queue is full.
        """
        if self._waiting and self._waiting_instances + len(question.prepared) > self._queue:
            raise Overloaded("the predict queue is full")
        loop = asyncio.get_running_loop()
        ticket = _Ticket(question, loop.create_future(), time.perf_counter())
        self._expect(ticket, loop)
        self._waiting.append(ticket)
        self._waiting_instances += len(question.prepared)
        if not self._busy:
            self._call_soon(loop)
        return ticket.answers

    def _call_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Dispatch in the loop's next turn: what comes in this one is one batch."""
        self._busy = True
        loop.call_soon(self._dispatch, loop)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._busy = False
        tickets = self._take()
        self._tell_waiting()
        if not tickets:
            return
        now = time.perf_counter()
        for ticket in tickets:
            metrics.queue_seconds.observe(now - ticket.submitted)
        questions = [ticket.question for ticket in tickets]
        answers: Sequence[Answers | BaseException] | None
        try:
            answers = self._engine.answer(questions)
        except Exception as exc:  # noqa: BLE001  # whoever asked gets it
            answers = [exc] * len(tickets)
        if answers is None:
            self._busy = True
            batch = self._engine.submit(questions)
            batch.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finish, loop, tickets, done))
            return
        _give(tickets, answers)
        if self._waiting:
            self._call_soon(loop)

    def _take(self) -> list[_Ticket]:
        """Take the next batch: questions in their order, those nobody waits for left out."""
        taken: list[_Ticket] = []
        size = 0
        while self._waiting:
            instances = len(self._waiting[0].question.prepared)
            if taken and size + instances > self._batch:
                break
            ticket = self._waiting.popleft()
            self._waiting_instances -= instances
            if not ticket.answers.done():
                taken.append(ticket)
                size += instances
        return taken

    def _expect(self, ticket: _Ticket, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that a ticket is answered by its deadline."""
        while self._unanswered and self._unanswered[0].answers.done():
            self._unanswered.popleft()
        self._unanswered.append(ticket)
        if self._timer is None:
            self._timer = loop.call_later(self._deadline, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        late = time.perf_counter() - self._deadline
        while self._unanswered and (self._unanswered[0].answers.done() or self._unanswered[0].submitted <= late):
            answers = self._unanswered.popleft().answers
            if not answers.done():
                answers.set_exception(Overloaded("the prediction's turn did not come before its deadline"))
        self._timer = None
        if self._unanswered:
            self._timer = loop.call_later(self._unanswered[0].submitted - late, self._expire, loop)

    def _tell_waiting(self) -> None:
        if len(self._waiting) != self._told:
            self._told = len(self._waiting)
            metrics.waiting_requests.set(self._told)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, tickets: Sequence[_Ticket], batch: Future[list[Answers | NotReady]]
    ) -> None:
        self._dispatch(loop)  # first: the engine computes while these answers are written
        failure = batch.exception()
        _give(tickets, [failure] * len(tickets) if failure else batch.result())


def _give(tickets: Sequence[_Ticket], results: Sequence[Answers | BaseException]) -> None:
    for ticket, result in zip(tickets, results, strict=True):
        if ticket.answers.done():
            continue
        if isinstance(result, BaseException):
            ticket.answers.set_exception(result)
        else:
            ticket.answers.set_result(result)
