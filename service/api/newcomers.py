"""Classes that are on their way: in the log, and not yet in the version that is served."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from service.api.problems import TOO_MANY_CLASSES, Fault, Problem
from service.position import Position
from service.serving.served import Serving


class Reservation:
    """The new classes of one request."""

    def __init__(self) -> None:
        self.seq: int | None = None

    def until(self, seq: int) -> None:
        """Keep their places until a version is served that has taken this sequence number."""
        self.seq = seq


class Newcomers:
    """Counts the classes that one process has let into the log, so that a flood of new labels ends at the door.

    What would be one class too many is refused by the learner in any case, item by item and after it was accepted; several
    processes, each of which counts for itself, may let a few of these pass. Used on the event loop only.
    """

    def __init__(self, most: int | None) -> None:
        """`most` is how many classes there is room for."""
        self._most = most
        self._serving: Serving | None = None
        self._known: frozenset[str] = frozenset()
        self._waiting: dict[str, int | None] = {}  # until this is decided; None: it is being written

    @contextmanager
    def reserved(
        self, serving: Serving | None, classes: Sequence[Sequence[str]], pointer: str | None = None
    ) -> Iterator[Reservation]:
        """Hold places for the new ones among the classes of each item while the context lasts, or longer: see Reservation.

        Raises Problem 422 for the first that there is no place for.
        """
        new = self._new(serving, classes)
        room = math.inf if self._most is None else self._most - len(self._known) - len(self._waiting)
        if len(new) > room:
            name, index = list(new.items())[max(0, int(room))]
            detail = f"class {name!r} would be one more than there is room for ({self._most})"
            pointer = f"/feedback/{index}/label" if pointer is None else pointer
            raise Problem(TOO_MANY_CLASSES, f"{pointer}: {detail}", faults=[Fault(pointer=pointer, detail=detail)])
        self._waiting |= dict.fromkeys(new)
        reservation = Reservation()
        try:
            yield reservation
        finally:
            for name in new:
                if reservation.seq is None:
                    self._waiting.pop(name, None)
                else:
                    self._waiting[name] = reservation.seq

    def _new(self, serving: Serving | None, classes: Sequence[Sequence[str]]) -> dict[str, int]:
        """Return the names that are neither known nor waiting, and the first item of each."""
        if self._known.issuperset(chain.from_iterable(classes)):
            return {}
        self._follow(serving)
        new: dict[str, int] = {}
        for index, names in enumerate(classes):
            for name in names:
                if name not in self._known and name not in self._waiting:
                    new.setdefault(name, index)
        return new

    def _follow(self, serving: Serving | None) -> None:
        """Look at the version that is served, where it is another one: a catalogue may be large."""
        if serving is not None and serving is not self._serving:
            self._serving = serving
            self._known = frozenset(serving.labels)
            decided = Position.of(serving.version).contains
            self._waiting = {
                name: seq
                for name, seq in self._waiting.items()
                if name not in self._known and (seq is None or not decided(seq))
            }
