"""Exact unlearning: the served line made once more without some entries, while the learner goes on with the old one.

The result is to the bit what a learner would have made that was given the same batches without these entries: the batches
and the gate's decisions are the recorded ones, and everything that follows from them (steps, rehearsal picks, randomness) is
worked out anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from safetensors.torch import load

from service.checkpointing import declaration, files_of, hashes_of, items_of
from service.commits import Outcome, row, with_parts
from service.learning.update import Item, Step
from service.position import Position
from service.reasons import CLASSES, FORGET, ROLLBACK
from service.replay import Records, ascending, fetch, rebuild
from service.store import StoreError, Version
from service.trails import report
from service.updating import update

log = logging.getLogger(__name__)

SLICE_SECONDS = 0.1  # that one part of the work takes, about, before live feedback has its turn
SLICE_VERSIONS = 16  # whose rows it reads at once: most are made anew before that time is over


class Forgetting:
    """A forgetting under way; `served` is the end of the line that has to be made anew.

    Raises ReplayImpossible where the log lacks what has to be learned again.
    """

    def __init__(self, records: Records, seqs: Collection[int], served: Version) -> None:
        self.started = time.perf_counter()
        self.seqs = frozenset(seqs)
        self._records = records
        self._base = _last_without(records, self.seqs, served)
        self.at = self._base.version
        """The version of the old line that was made anew last."""
        self._made: list[Version] = []
        self.state = rebuild(records, self._base)
        self._files = files_of(self.state)

    def advance(self, served: Version) -> bool:
        """Make some more versions of the line that ends in `served`; return whether all are made. Raises StoreError."""
        deadline = time.perf_counter() + SLICE_SECONDS
        for version in ascending(self._records.checkpoints, self.at, at_once=SLICE_VERSIONS):
            if version.version > served.version:  # a learner goes on while `whatif` looks
                break
            if version.superseded is None:
                self._make_anew(version)
            self.at = version.version
            if time.perf_counter() > deadline:
                break
        return self.at == served.version

    def rows(self, newest: int, marks: Sequence[Outcome], environment: Mapping[str, Any]) -> list[Version]:
        """Return the rows of what was made, to be the versions after the newest, and of marks, which add nothing to it."""
        made = [*self._made, *map(self._row, marks)]
        numbers = range(newest + 1, newest + 1 + len(made))
        parents = chain([self._base.version], numbers)
        here = dict(environment)  # where they were made anew, which may be elsewhere than where they were made
        return [replace(row, version=n, parent=p, environment=here) for row, n, p in zip(made, numbers, parents, strict=False)]

    @property
    def parent(self) -> int:
        """The version that the line goes on from where nothing had to be made anew."""
        return self._base.version

    def _make_anew(self, version: Version) -> None:
        """Make a version of the old line without the entries; none where it took nothing else."""
        taken = set(chain(version.held, version.quarantined, *(new for new, _ in version.steps)))
        if taken and taken <= self.seqs and version.act is None:
            return
        outcome = Outcome(
            position=Position.of(version),
            span=(version.first_seq, version.last_seq),
            reason=version.reason,
            act=version.act,
            factors=self._without(version.weights),
            held=[seq for seq in version.held if seq not in self.seqs],
            quarantined=self._without(version.quarantined),
            gate=version.gate,
        )
        new = [seq for learned, _ in version.steps for seq in learned if seq not in self.seqs]
        before = self.state.updates
        try:
            outcome = replace(outcome, steps=self._redo(version, new))
        except StoreError:  # it comes before anything is changed: tried again, or told of the act
            raise
        except Exception as exc:  # noqa: BLE001  # a model of the user's own may raise anything
            report(log, logging.WARNING, "learner.update_failed: made anew", exc, version=version.version)
            self._restore(before)
            self.state.update([], {})
            reason = f"{type(exc).__name__}, when the version was made anew"  # what it says may quote one of the others
            outcome = replace(outcome, quarantined={**outcome.quarantined, **dict.fromkeys(new, reason)})
        self._files = files_of(self.state)
        self._made.append(self._row(outcome))

    def _row(self, outcome: Outcome) -> Version:
        """Return the row of the state as it is; it gets its number and its environment with the others."""
        parts = {"frozen": self._base.parts["frozen"], **hashes_of(self._files)}
        unnumbered = row(self.state, outcome, version=0, parent=None, environment={})
        return with_parts(unnumbered, parts, stored=False)

    def _redo(self, version: Version, new: Sequence[int]) -> Sequence[Step]:
        """Learn what is left of an update's items, or classes; return the steps."""
        if version.reason in (ROLLBACK, FORGET):
            return ()
        state, records, feedback = self.state, self._records, self._records.feedback
        entries = fetch(feedback, version, set(new))
        if version.reason == CLASSES:
            state.declare([declaration(entries[seq]) for seq in new])
            return [Step(tuple(new), ())]
        items = items_of(state.model.input, {seq: entries[seq] for seq in new})
        factors = self._without(version.weights)
        assert records.features is not None

        def earlier(seqs: Collection[int], encoded: Container[int]) -> dict[int, Item]:
            return items_of(state.model.input, fetch(feedback, version, seqs), encoded=encoded)

        steps, _ = update(state, items, factors, earlier=earlier, said=records.features.fetch, alive=records.alive)
        return steps

    def _restore(self, updates: int) -> None:
        frozen, _ = self.state.model.split_state()
        self.state.load(updates, {**frozen, **load(self._files["model"])}, load(self._files["learner"]))

    def _without(self, values: Mapping[int, Any]) -> dict[int, Any]:
        return {seq: value for seq, value in values.items() if seq not in self.seqs}


def _last_without(records: Records, seqs: Collection[int], served: Version) -> Version:
    """Return the last version of the served line that took none of the entries."""
    first: Version | None = None
    for seq in seqs:
        records.alive()
        for taker in records.checkpoints.takers(seq):
            if taker.superseded is None and (first is None or taker.version < first.version):
                first = taker
    if first is None:
        row = records.checkpoints.get(served.version)  # the learner's own knows of no files
        assert row is not None
        return row
    parent = None if first.parent is None else records.checkpoints.get(first.parent)
    assert parent is not None, "version 0 takes nothing, so what takes something has a parent"
    return parent
