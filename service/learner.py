"""The learner: FeedbackLog.read -> evaluate -> update -> gate -> CheckpointStore.commit, again and again."""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from models.errors import ModelError
from service import metrics, traces
from service.attempts import Attempt, AttemptFile
from service.checkpointing import (
    available,
    check_shaping,
    declaration,
    environment,
    files_of,
    first_state,
    items_of,
    recall_features,
)
from service.commits import NO_FEATURES, Commit, Commits, Outcome, row, with_parts
from service.erasure import entries_to_forget, erase
from service.fates import fate_of
from service.forgets import MOST_DEATHS, Forgets, Tries
from service.forgetting import Forgetting
from service.learning.arithmetic import use_deterministic_torch
from service.learning.gate import Gate, UpdateHarms
from service.learning.limits import UpdateRefused
from service.learning.update import Item, LearningState, Step
from service.position import Intake, Position
from service.reasons import CLASSES, FORGET, INITIAL, REFUSAL, RELEASE, ROLLBACK
from service.recovery import recover
from service.replay import Records, ReplayImpossible, rebuild
from service.settings import GateSettings
from service.shelf import Shelf
from service.store import (
    ACTS,
    CorruptCheckpoint,
    DataDirectoryError,
    Entry,
    PredictionJournal,
    StoreError,
    StoreUnavailable,
    Version,
)
from service.trails import report
from service.updating import update

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0  # the safety net under the bell
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds between tries while the store fails


class ActRefused(Exception):
    """An act of an admin can't be carried out; the message says why."""


class Learner:
    """Turns feedback into versions. Whoever makes one holds `CheckpointStore.lead`.

    Raises SpecificationError, ShapingDiffers, CorruptCheckpoint or DataDirectoryError where it can't start.
    """

    def __init__(
        self,
        records: Records,
        gate: GateSettings,
        *,
        journal: Callable[[], PredictionJournal],
        attempts: Path,
    ) -> None:
        """`journal` opens the prediction journal, which only forgetting touches."""
        assert records.features is not None, "a learner spares itself what a frozen encoder said before"
        settings = records.settings
        self._records = records
        self._feedback, self._checkpoints, self._features = records.feedback, records.checkpoints, records.features
        self._journal = journal
        self._attempts = AttemptFile(attempts)
        self._suspicion, self._interrupted, tries = self._attempts.read()
        available("learner.device", settings.device)
        self._environment = environment(settings.device, settings.threads)
        self._stopping = False
        use_deterministic_torch(settings.threads)
        latest = self._checkpoints.latest()
        self._state, self._version = self._initialise() if latest is None else self._load(latest)
        self._gate = Gate(gate, self._feedback.secret(), self._checkpoints.gate())
        self._position = Position.of(self._version)
        self._commits = Commits(self._checkpoints, self._features, self._version.parts["frozen"])
        self._shelf = Shelf(self._feedback.fetch)
        self._erasing = self._left_to_erase()
        self._forgets = Forgets(self._forgets_left(), tries or Tries())
        self._forgets_interrupted = tries is not None

    def run(self) -> None:
        """Learn until `stop`, and leave with every update committed. Raises CorruptCheckpoint."""
        pause = FIRST_PAUSE
        longest = self._records.settings.watchdog_seconds / 4  # to wait is no sign of life
        self._state.drift.prepare()  # not earlier: who waits for the start need not wait for it
        gc.collect()
        gc.freeze()  # what is there by now stays: to look at it again and again would take a tenth of a second each time
        while not self._stopping:
            self._records.alive()
            try:
                if not self.step():
                    self._feedback.wait(min(POLL_SECONDS, longest))
                pause = FIRST_PAUSE
            except StoreUnavailable as exc:
                log.error("learner.store_failed: %s; trying again in %.1f s", exc, pause)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE, longest)
                with suppress(StoreUnavailable):  # a version that is lost is made again
                    self._commits.finish()
                self._reload()
        self._commits.close()
        with suppress(StoreUnavailable):  # what is left on record would cost a wrong suspicion, and a failed stop more
            self._attempts.write(self._suspicion, None, None)
        self._attempts.close()

    def stop(self) -> None:
        """Leave `run` after the update that is under way. Safe in a signal handler, which must ring the bell too."""
        self._stopping = True

    def blame_predecessor(self, reason: str) -> None:
        """Suspect what the last learner was at when it died, if it was at anything: so an item that kills it is found."""
        attempt, self._interrupted = self._interrupted, None
        if attempt is not None and not self._position.contains(attempt.last_seq):
            self._failed(self._next(attempt.items), attempt, f"the learner died: {reason}", certain=False)
        elif self._forgets_interrupted:
            self._read_forgets()  # no version need be past those that were carried out
            if (act := self._forgets.died()) is not None:
                self._refuse(act, ActRefused(f"the learner died of it {MOST_DEATHS} times, last: {reason}"))

    def step(self) -> bool:
        """Make one update of what waits, or a part of a forgetting; return whether anything did. Raises StoreUnavailable."""
        forgot = self._forget_on()
        intake = self._next(self._suspicion.limit)
        if intake is None:
            self._commits.finish()
            return forgot
        kind = intake.entries[0].kind
        if forgot and kind in ACTS and kind != "forget":  # which only joins the queue
            # It finds the line that the acts before it made; and while it waits, no death of the learner is its doing.
            return True
        if self._suspicion.limit is not None:
            # The next update may end the process: what was cleared before it must not be lost with it.
            self._commits.finish()
        self._try(intake)
        return True

    def _next(self, limit: int | None) -> Intake | None:
        most = self._state.settings.update_items
        return self._position.next(self._feedback, min(most, limit or most))

    def _try(self, intake: Intake) -> None:
        attempt = Attempt(intake.entries[-1].seq, len(intake.entries))
        self._record(attempt)
        try:
            with traces.span("update"):
                self._take(intake)
        except StoreError:
            raise
        except Exception as exc:  # noqa: BLE001
            # A model of the user's own may raise anything: its items are suspected, and the learner goes on.
            report(log, logging.WARNING, "learner.update_failed", exc, items=attempt.items, seq=attempt.last_seq)
            self._reload()
            certain = isinstance(exc, ModelError | UpdateRefused)
            self._failed(intake, attempt, f"{type(exc).__name__}: {exc}", certain=certain)
        else:
            self._suspicion.passed(attempt.last_seq)

    def _take(self, intake: Intake) -> None:
        if traces.recording():
            traces.link(self._feedback.traces([entry.seq for entry in intake.entries]))
            traces.tell(first_seq=intake.span[0], last_seq=intake.span[1], items=len(intake.entries))
        match intake.entries[0].kind:
            case "feedback":
                self._learn(intake)
            case "class":
                self._declare(intake)
            case _:
                self._act(intake)

    def _declare(self, intake: Intake) -> None:
        started = time.perf_counter()
        self._state.declare([declaration(entry) for entry in intake.entries])
        steps = [Step(tuple(entry.seq for entry in intake.entries), ())]
        self._commit(Outcome(position=intake.position, span=intake.span, reason=CLASSES, steps=steps), started)

    def _learn(self, intake: Intake) -> None:
        """Hold some items out, learn the rest, and commit what the gate accepts."""
        started = time.perf_counter()
        sources = {entry.seq: entry.source for entry in intake.entries}
        recall_features(self._state, self._features.fetch, sources)
        items = self._shelf.new(self._state.model, intake.entries, encoded=self._state.features)
        held = [seq for seq, each in items.items() if self._gate.holds_out(seq, each, self._state)]
        learned = {seq: each for seq, each in items.items() if seq not in held}
        self._gate.admit({seq: sources[seq] for seq in held})  # also where the update is refused: it must see a new world
        factors = self._gate.factors(self._state, learned, sources)
        outcome = Outcome(position=intake.position, span=intake.span, held=held, factors=factors)
        try:
            with self._gate.judging(self._state, len(learned), self._items) as verdict:
                steps, added = self._update(learned, factors)
        except UpdateHarms as exc:
            metrics.gate_refusals.inc()
            log.warning("learner.update_refused: %s", exc, extra={"seq": intake.span[1]})
            self._reload()
            # It was never trained on, so it is held out too: after an honest drift, that is how the gate sees the new world.
            self._gate.admit({seq: sources[seq] for seq in learned})
            self._quarantine(replace(outcome, factors={}, gate=exc.decision), dict.fromkeys(learned, str(exc)))
        else:
            metrics.update_compute_seconds.observe(time.perf_counter() - started)
            oldest = min(entry.received_at for entry in intake.entries)
            self._commit(replace(outcome, steps=steps, gate=verdict.decision), started, features=added, waited_since=oldest)

    def _update(self, items: Mapping[int, Item], factors: Mapping[int, float]) -> tuple[list[Step], dict[int, bytes]]:
        """Make the next version in place; return its steps, and what a frozen encoder says of new items."""
        alive = self._records.alive
        made = update(self._state, items, factors, earlier=self._items, said=self._features.fetch, alive=alive)
        if self._state.model.encoder.frozen:
            self._shelf.strip(items)
        return made

    def _items(self, seqs: Collection[int], encoded: Container[int]) -> dict[int, Item]:
        return self._shelf.fetch(self._state.model, seqs, encoded=encoded)

    def _act(self, intake: Intake) -> None:
        """Carry out an act of an admin. What can't be carried out is quarantined with the reason."""
        (act,) = intake.entries
        asked = json.loads(act.label)
        self._commits.finish()
        try:
            match act.kind:
                case "rollback":
                    self._roll_back(intake, asked["to"], reapply=asked["reapply"])
                case "release":
                    self._release(intake, asked["version"])
                case _:
                    if not self._is_decided(act):
                        self._forgets.add(act)
                    self._position = intake.position
                    self._record(None)  # the act is read, and not to blame for what comes meanwhile
        except (ReplayImpossible, CorruptCheckpoint, DataDirectoryError, ActRefused) as exc:
            self._refuse(act, exc)

    def _roll_back(self, intake: Intake, to: int, *, reapply: bool) -> None:
        """Go on from the state of an older version. What came after it is skipped, or becomes the backlog."""
        started = time.perf_counter()
        target = self._checkpoints.get(to)
        if target is None or target.version > self._version.version:
            raise ActRefused(f"there is no version {to}")
        self._state, seq = rebuild(self._records, target), intake.span[0]
        backlog = target.backlog
        if reapply and target.applied_seq + 1 < seq:
            backlog = (*backlog, (target.applied_seq + 1, seq - 1))
            self._gate.forget(range(target.applied_seq + 1, seq))  # they are taken again, and maybe not held out
        position = Position(seq, tuple(backlog) if reapply else ())
        outcome = Outcome(position=position, span=(seq, seq), reason=ROLLBACK, act=seq)
        log.warning("learner.rolled_back", extra={"to": to, "seq": seq})
        self._commit(outcome, started, parent=to)

    def _release(self, intake: Intake, version: int) -> None:
        """Learn what a version quarantined, whatever the gate would say of it."""
        started = time.perf_counter()
        row = self._checkpoints.get(version)
        found = {} if row is None else self._feedback.fetch(list(row.quarantined))
        entries = {seq: entry for seq, entry in sorted(found.items()) if self._in_quarantine(entry)}
        if not entries:
            raise ActRefused(f"version {version} has no feedback in quarantine")
        try:
            items = items_of(self._state.model.input, entries)
            steps, added = self._update(items, {})
            self._gate.forget(items)
        except StoreError:
            raise
        except Exception as exc:  # a model of the user's own may raise anything
            self._reload()
            report(log, logging.WARNING, "learner.update_failed: a release", exc, version=version)
            raise ActRefused(f"the update failed: {type(exc).__name__}") from exc  # what it says may quote what was sent
        span = min(entries), max(entries)
        outcome = Outcome(position=intake.position, span=span, reason=RELEASE, act=intake.span[0], steps=steps)
        self._commit(outcome, started, features=added)

    def _in_quarantine(self, entry: Entry) -> bool:
        """Return whether an entry is feedback that is in quarantine still: it was neither released nor forgotten."""
        return entry.kind == "feedback" and fate_of(self._feedback, self._checkpoints, entry).status == "quarantined"

    def _forget_on(self) -> bool:
        """Do a part of the forgetting that is under way, or begin the next; return whether there is one."""
        self._records.alive()
        if self._erasing:
            erase(
                self._erasing,
                feedback=self._feedback,
                checkpoints=self._checkpoints,
                features=self._features,
                journal=self._journal,
                alive=self._records.alive,
            )
            metrics.forgotten.inc(len(self._erasing))
            self._shelf.forget(self._erasing)
            self._erasing = frozenset()
        if not self._forgets:
            return False
        self._commits.finish()
        try:
            if self._forgets.forgetting is None:
                self._read_forgets()
                self._forgets.take()
                self._record(None)
                self._forgets.begin(self._records, self._version)
            elif self._forgets.forgetting.advance(self._version):
                self._finish_forgetting(self._forgets.taken, self._forgets.forgetting)
        except StoreUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001  # a model of the user's own may raise anything
            self._reload()  # the state may be that of the line that was being made
            if (act := self._forgets.failed()) is not None:
                self._refuse(act, exc)
        return True

    def _read_forgets(self) -> None:
        """Read the acts of forgetting that come next, so that they are carried out together."""
        while (intake := self._next(1)) is not None and intake.entries[0].kind == "forget":
            self._try(intake)

    def _forgets_read(self) -> list[Entry]:
        """Return the acts of forgetting that a version is past."""
        return [act for act in self._feedback.acts("forget") if act.seq <= self._position.applied_seq]

    def _forgets_left(self) -> list[Entry]:
        """Return those of them that were cut off, which the log does not give again."""
        return [act for act in self._forgets_read() if not self._is_decided(act)]

    def _left_to_erase(self) -> frozenset[int]:
        """Return what was forgotten and maybe not erased before a crash."""
        done = [act for act in self._forgets_read() if self._checkpoints.made_by(act.seq)]
        return frozenset(seq for act in done for seq in entries_to_forget(self._feedback, act))

    def _is_decided(self, act: Entry) -> bool:
        """Return whether an act was carried out or refused."""
        return self._checkpoints.made_by(act.seq) is not None or bool(self._checkpoints.takers(act.seq))

    def _refuse(self, act: Entry, exc: Exception) -> None:
        """Put on record why an act is not carried out, in words that name no path and quote no feedback."""
        match exc:
            case DataDirectoryError():
                log.error("learner.store_damaged: %s", exc)
                reason = "the data is damaged; the log of the service says what is to be done"
            case StoreError() | ActRefused():
                reason = str(exc)
            case _:
                report(log, logging.WARNING, "learner.act_failed", exc, seq=act.seq)
                reason = f"it failed: {type(exc).__name__}"
        log.warning("learner.act_refused: %s, %s", act.kind, reason, extra={"seq": act.seq})
        self._set_aside(Outcome(position=self._past(act), span=(act.seq, act.seq), reason=REFUSAL), {act.seq: reason})

    def _past(self, act: Entry) -> Position:
        """Return the position once an act is decided: live feedback after it may have been learned meanwhile."""
        return replace(self._position, applied_seq=max(act.seq, self._position.applied_seq))

    def _finish_forgetting(self, acts: Sequence[Entry], forgetting: Forgetting) -> None:
        """Serve the line that was made anew; what was forgotten is erased once that is on stable storage, and not before."""
        *others, last = (Outcome(position=self._past(act), reason=FORGET, act=act.seq) for act in acts)
        rows = forgetting.rows(self._version.version, others, self._environment)
        self._state = forgetting.state
        self._gate.forget(forgetting.seqs)
        self._commit(
            last,
            forgetting.started,
            parent=rows[-1].version if rows else forgetting.parent,
            before=rows,
            forgotten=forgetting.seqs,
        )
        self._commits.finish()
        self._erasing = forgetting.seqs
        self._forgets.done()
        self._record(None)

    def _failed(self, intake: Intake | None, attempt: Attempt, reason: str, *, certain: bool) -> None:
        """Narrow the suspicion down, or set the one item aside that is left of it."""
        metrics.update_failures.inc()
        self._suspicion.failed(attempt.last_seq, attempt.items)
        found = intake is not None and intake.span == (attempt.last_seq, attempt.last_seq)
        if intake is not None and found and (certain or self._suspicion.convicts):
            self._quarantine(Outcome(position=intake.position, span=intake.span), {attempt.last_seq: reason})
            self._suspicion.passed(attempt.last_seq)
        self._record(None)

    def _record(self, attempt: Attempt | None) -> None:
        """Put on record what would be to blame if the process ended now."""
        self._attempts.write(self._suspicion, attempt, self._forgets.tries)

    def _quarantine(self, outcome: Outcome, reasons: Mapping[int, str]) -> None:
        """Set feedback or classes aside, and say so."""
        # The reason may quote what was sent: it is in the version, for those who may ask.
        log.warning("learner.quarantined", extra={"items": len(reasons), "seq": min(reasons)})
        metrics.quarantined.inc(len(reasons))
        self._set_aside(outcome, reasons)

    def _set_aside(self, outcome: Outcome, reasons: Mapping[int, str]) -> None:
        """Commit a version that is past these entries, and learned nothing of them."""
        self._state.update([], {})
        self._commit(replace(outcome, quarantined=reasons), time.perf_counter())

    def _commit(
        self,
        outcome: Outcome,
        started: float,
        *,
        parent: int | None = None,
        before: Sequence[Version] = (),
        features: Mapping[int, bytes] = NO_FEATURES,
        forgotten: Collection[int] = (),
        waited_since: float | None = None,
    ) -> None:
        """Hand the new version to the disk: the next update computes while this one is written."""
        last = before[-1].version if before else self._version.version
        version = row(
            self._state,
            outcome,
            version=last + 1,
            parent=last if parent is None else parent,
            environment=self._environment,
        )
        self._commits.submit(
            Commit(
                version=version,
                files=files_of(self._state),
                gate=self._gate.dump(),
                started=started,
                before=before,
                features=features,
                forgotten=forgotten,
                waited_since=waited_since,
            )
        )
        self._version, self._position = version, outcome.position

    def _initialise(self) -> tuple[LearningState, Version]:
        """Commit version 0: the initial weights, before any feedback."""
        state = first_state(self._records.shaping, self._records.settings.device)
        parts = self._checkpoints.put({"frozen": state.frozen_bytes(), **files_of(state)})
        outcome = Outcome(position=Position(), reason=INITIAL)
        first = with_parts(row(state, outcome, version=0, parent=None, environment=self._environment), parts)
        self._checkpoints.initialise(self._records.shaping, first)
        return state, first

    def _load(self, latest: Version) -> tuple[LearningState, Version]:
        """Take up where the newest version ended."""
        recorded = self._checkpoints.shaping()
        assert recorded is not None, "version 0 and the shaping settings are committed as one"
        check_shaping(recorded, self._records.shaping)
        return recover(self._records, latest), latest

    def _reload(self) -> None:
        """Drop a torn state, and go on from the newest version. Raises StoreUnavailable where one that was made is lost.

        Then who reloads must not go on from where that version was: what it took would be in no version.
        """
        self._commits.finish()
        latest = self._checkpoints.latest()
        assert latest is not None, "version 0 was committed before anything could be dropped"
        self._state, self._version = self._load(latest)
        self._position = Position.of(latest)
        for act in self._forgets_left():  # a refusal may not have come on record
            self._forgets.add(act)
