"""The learner's intake: what it takes next, in order, and where in the log it then is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from service.store import ACTS, Entry, FeedbackLog, Span, Version


@dataclass(frozen=True, slots=True)
class Intake:
    """Entries of one kind, and the position once they are learned."""

    entries: Sequence[Entry]
    position: Position

    @property
    def span(self) -> Span:
        """The first and the last sequence number."""
        return self.entries[0].seq, self.entries[-1].seq


@dataclass(frozen=True, slots=True)
class Position:
    """How far learning is: everything up to `applied_seq` is decided, but for the backlog, which comes first."""

    applied_seq: int = 0
    backlog: tuple[Span, ...] = field(default=())

    @classmethod
    def of(cls, version: Version) -> Position:
        """Return where a version is."""
        return cls(version.applied_seq, version.backlog)

    def lag(self, log_seq: int) -> int:
        """Return how many sequence numbers wait in a log that ends at `log_seq`."""
        return max(0, log_seq - self.applied_seq) + sum(last - first + 1 for first, last in self.backlog)

    def contains(self, seq: int) -> bool:
        """Return whether a version at this position has decided an entry."""
        return seq <= self.applied_seq and not any(first <= seq <= last for first, last in self.backlog)

    def next(self, feedback: FeedbackLog, limit: int) -> Intake | None:
        """Return what comes next, None where nothing waits: labels, classes, or one act. Tombstones are passed over."""
        intake: Intake | None = Intake((), self)
        while intake is not None and not intake.entries:  # what is passed over may be longer than what is read at once
            position = intake.position
            intake = position._again(feedback, limit) if position.backlog else position._ahead(feedback, limit)
        return intake

    def _ahead(self, feedback: FeedbackLog, limit: int) -> Intake | None:
        """Return the first of what was not read yet, maybe tombstones only; None at the log's end."""
        entries = feedback.read(self.applied_seq, limit)
        if not entries:
            return None
        kinds = [entry.kind for entry in entries if entry.kind != "forgotten"]
        if kinds[:1] and kinds[0] in ACTS:
            act = next(entry for entry in entries if entry.kind == kinds[0])
            return Intake([act], Position(act.seq))
        taken = list(takewhile(lambda entry: entry.kind in (*kinds[:1], "forgotten"), entries))
        return Intake([entry for entry in taken if entry.kind in kinds[:1]], Position(taken[-1].seq))

    def _again(self, feedback: FeedbackLog, limit: int) -> Intake:
        """Return the first of the backlog, maybe nothing. Acts were carried out when they came, and are not again."""
        (first, last), *rest = self.backlog
        entries = [entry for entry in feedback.read(first - 1, limit) if entry.seq <= last]
        kinds = [entry.kind for entry in entries if entry.kind in ("feedback", "class")]
        passed = (*ACTS, "forgotten")
        taken = list(takewhile(lambda entry: entry.kind in (*kinds[:1], *passed), entries))
        left = ((taken[-1].seq + 1, last),) if taken and taken[-1].seq < last else ()
        learned = [entry for entry in taken if entry.kind in kinds[:1]]
        return Intake(learned, Position(self.applied_seq, (*left, *rest)))
