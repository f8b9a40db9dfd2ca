"""The gate: holds feedback out, and decides whether what an update made may become a version.

What it decides is recorded with the version; replay follows the record. So its settings and what it knows shape no version
behind the record's back, and both may change.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import variance
from typing import Any

from torch import Tensor

from service.learning.factors import DOUBTED
from service.learning.findings import Findings
from service.learning.holdout import Holdout
from service.learning.limits import UpdateRefused, norm_of
from service.learning.sources import FEWEST_SOURCES, Sources
from service.learning.update import Item, LearningState
from service.settings import GateSettings

FEWEST_LEARNED = 100  # items that are learned before any is held out,
FEWEST_OF_CLASS = 20  # and of its class: what is young needs every label
FEWEST_JUDGED = 16  # held-out items that say anything of an update
ERRORS = 3.0  # standard errors that count as noise
MOST_CREDIT = 10.0  # seconds
BLOCK = 8  # sequence numbers in a row that one keyed hash decides on,
NUMBERS = struct.Struct(f"{BLOCK}I")  # with a number for each

NOBODY = ""  # the name of feedback that came without one

Fetch = Callable[[Sequence[int], Container[int]], Mapping[int, Item]]
"""Returns items by sequence number, one that is gone left out; those in the container need no instance."""


class UpdateHarms(UpdateRefused):
    """What the update made is worse on the holdout than what is served."""

    def __init__(self, message: str, decision: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.decision = decision


@dataclass(slots=True)
class Verdict:
    """What is recorded of an update that the gate accepts; None where it was not judged."""

    decision: Mapping[str, Any] | None = None


class Gate:
    """Knows the holdout. `secret` keys the choice of it, so that no client can tell what is held out."""

    def __init__(self, settings: GateSettings, secret: bytes, known: bytes | None) -> None:
        self._settings = settings
        self._keyed = hmac.new(secret, digestmod=hashlib.sha256)
        self._drawn: tuple[int, tuple[int, ...]] = -1, ()  # the block that was asked for last, and its numbers
        state = json.loads(known) if known else {}
        self._holdout = Holdout(settings.holdout_items, ((seq, source) for seq, source in state.get("holdout", ())))
        self._sources = Sources(settings.source_share, state.get("sources", {}))
        self._findings = Findings(state.get("findings", {}))
        self._credit = 0.0  # seconds that judging may take now
        self._cost = 0.0  # seconds that one item took when it was judged last, twice
        self._measured: tuple[LearningState, int, float] | None = None  # a state, its updates, and the norm then

    def holds_out(self, seq: int, item: Item, state: LearningState) -> bool:
        """Return whether an item is held out. A correction never is, nor what is of a young model or class."""
        if item.replaces is not None or state.prequential.items < FEWEST_LEARNED or not self._chosen(seq):
            return False
        classes = state.model.head.strata([item.label])
        return all(state.prequential.counted(each) >= FEWEST_OF_CLASS for each in classes)

    def factors(self, state: LearningState, items: Mapping[int, Item], sources: Mapping[int, str | None]) -> dict[int, float]:
        """Return factors on the weights of new items, for what their sources are; those of 1 are left out.

        What one source brings beyond its share weighs less. Of a source that is doubted, an item weighs next to nothing where
        its loss is outside what is usual for its class, or where another source labelled a near-duplicate otherwise.
        """
        names = {seq: sources[seq] or NOBODY for seq in items}
        self._sources.count(list(names.values()))
        if len(self._sources.active) < FEWEST_SOURCES or not items:
            return {}
        findings = self._findings.look(state, items, names)
        for seq, finding in findings.items():
            if finding.evidence is not None:
                self._sources.judge(names[seq], finding.evidence)
        doubted = {name for name in set(names.values()) if self._settings.doubt and self._sources.doubted(name)}
        for seq, finding in findings.items():
            if names[seq] not in doubted:
                self._findings.take(finding)
        shares = {name: self._sources.share_factor(name) for name in set(names.values())}
        factors = {
            seq: shares[name] * (DOUBTED if name in doubted and findings[seq].unusual else 1.0) for seq, name in names.items()
        }
        return {seq: factor for seq, factor in factors.items() if factor != 1.0}

    def admit(self, held: Mapping[int, str | None]) -> None:
        """Take new items into the holdout, with their sources."""
        for seq, source in held.items():
            self._holdout.add(seq, source)

    def forget(self, seqs: Collection[int]) -> None:
        """Let go of items, and of what else is known of any single one."""
        self._holdout.forget(seqs)
        self._findings.forget()

    @contextmanager
    def judging(self, state: LearningState, new: int, fetch: Fetch) -> Iterator[Verdict]:
        """Judge an update of `new` items that is made while the context lasts, by what is served against what it made.

        By the freshest of the holdout, more for a larger update. A model that is slow to judge is judged every few updates:
        it takes `effort` of the time that updates take. Raises UpdateRefused and UpdateHarms at the end.
        """
        norm, verdict = self._norm_before(state), Verdict()
        count = max(FEWEST_JUDGED, 2 * new)
        started = time.perf_counter()
        affordable = self._settings.effort > 0 and self._cost * count <= self._credit
        sources = self._holdout.sample(count) if affordable else {}
        items = fetch(list(sources), self._holdout.features)
        enough = len(items) >= FEWEST_JUDGED
        before = self._holdout.losses(state.model, items) if enough else None
        looked = time.perf_counter() - started
        yield verdict
        updated = time.perf_counter()
        self._check_norm(norm, norm_after := norm_of(state.model))
        self._measured = state, state.updates, norm_after
        self._credit = min(self._credit + self._settings.effort * (updated - started - looked), MOST_CREDIT)
        if before is not None and before.isfinite().sum() >= FEWEST_JUDGED:
            after = self._holdout.losses(state.model, items).nan_to_num(1.0)  # no answer any more: nothing is worse
            spent = looked + time.perf_counter() - updated
            self._cost, self._credit = spent / len(items), self._credit - spent
            verdict.decision = self._compare(after - before, [sources[seq] for seq in items])

    def _norm_before(self, state: LearningState) -> float:
        """Return the norm of the weights: the one after the last update, where that made the state."""
        if self._measured is not None and self._measured[:2] == (state, state.updates):
            return self._measured[2]
        return norm_of(state.model)

    def _check_norm(self, before: float, after: float) -> None:
        if after > self._settings.growth * max(before, 1.0):
            raise UpdateRefused(f"the update made the norm of the weights {after:.4g}; it was {before:.4g}")

    def _compare(self, differences: Tensor, sources: Sequence[str | None]) -> dict[str, Any]:
        """A one-sided paired test: refused is what loses more than before by `margin`, and three standard errors on top.

        Every source's mean counts alike, however many items it has: no source outvotes the others.
        """
        known = [(lost, source) for lost, source in zip(differences.tolist(), sources, strict=True) if not math.isnan(lost)]
        counts = Counter(source for _, source in known)
        harm = sum(lost / counts[source] for lost, source in known) / len(counts)
        error = math.sqrt(variance([lost for lost, _ in known]) * sum(1 / n for n in counts.values())) / len(counts)
        decision = {"items": len(known), "harm": round(harm, 6), "error": round(error, 6)}
        if harm - ERRORS * error > self._settings.margin:
            raise UpdateHarms(f"worse by {harm:.3f} +- {error:.3f} on {len(known)} held-out items", decision)
        return decision

    def dump(self) -> bytes:
        """Return what it knows, as JSON."""
        known = {
            "holdout": self._holdout.known(),
            "sources": self._sources.known(),
            "findings": self._findings.known(),
        }
        return json.dumps(known).encode()

    def _chosen(self, seq: int) -> bool:
        block, place = divmod(seq, BLOCK)
        if block != self._drawn[0]:
            keyed = self._keyed.copy()  # to key it anew takes as long as the rest
            keyed.update(b"holdout %d" % block)
            self._drawn = block, NUMBERS.unpack(keyed.digest())
        return self._drawn[1][place] < self._settings.holdout * 2**32
