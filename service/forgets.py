"""The acts of forgetting that were read and not decided: carried out together, and one that ends the learner is found."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from service.erasure import entries_to_forget
from service.forgetting import Forgetting
from service.replay import Records
from service.store import Entry, Version

log = logging.getLogger(__name__)

MOST_DEATHS = 8  # of the learner in one forgetting, before it is given up: a few may have another cause


@dataclass(slots=True)
class Tries:
    """What came of the tries so far. It survives a crash as plain JSON."""

    deaths: int = 0
    """How often the learner died while these acts were carried out."""
    alone: bool = False
    """Whether acts are carried out one at a time, since together they failed."""


class Forgets:
    """A queue of acts. Those that wait are taken together: the line after the earliest item is made anew once for all."""

    def __init__(self, acts: Sequence[Entry], tries: Tries) -> None:
        self._waiting = list(acts)
        self._tries = tries
        self.taken: Sequence[Entry] = ()
        """The acts that are being carried out."""
        self.forgetting: Forgetting | None = None
        """Their forgetting, once it has begun."""

    def __bool__(self) -> bool:
        """Return whether there is an act that is not decided."""
        return bool(self._waiting)

    @property
    def tries(self) -> Tries | None:
        """What to put on record, None while nothing is carried out."""
        return self._tries if self.taken else None

    def add(self, act: Entry) -> None:
        """Have an act wait; it is read again where an update fails before a version is past it."""
        if act.seq not in [each.seq for each in self._waiting]:
            self._waiting.append(act)

    def take(self) -> None:
        """Choose what is carried out next."""
        self.taken = self._waiting[:1] if self._tries.alone else tuple(self._waiting)

    def begin(self, records: Records, served: Version) -> None:
        """Begin to carry out what was taken. Raises ReplayImpossible, StoreError."""
        seqs = {seq for act in self.taken for seq in entries_to_forget(records.feedback, act)}
        self.forgetting = Forgetting(records, seqs, served)
        told = {"items": len(seqs), "version": self.forgetting.parent}
        log.warning("learner.forgetting: what came after the version is made anew", extra=told)

    def done(self) -> None:
        """What was taken is carried out."""
        self._waiting = [act for act in self._waiting if act not in self.taken]
        self._tries = Tries(alone=self._tries.alone and bool(self._waiting))
        self.taken, self.forgetting = (), None

    def died(self) -> Entry | None:
        """The learner died at it; return the act that is to be refused, if it died too often."""
        self._tries.deaths += 1
        if self._tries.deaths < MOST_DEATHS:
            return None
        self.take()
        return self.failed()

    def failed(self) -> Entry | None:
        """Return the act that can't be carried out, None where several were taken: then each is tried alone."""
        taken = self.taken
        self.taken, self.forgetting, self._tries = (), None, Tries(alone=True)
        if len(taken) != 1:
            return None
        self._waiting.remove(taken[0])
        return taken[0]
