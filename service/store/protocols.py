"""What a store must provide, and the plain data that goes in and out. Stores know bytes, not tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from service.memory import Memory

Part = Literal["frozen", "model", "learner"]
"""The parts of a checkpoint: what no update changes, what the engine needs, what only the learner needs."""

PARTS: tuple[Part, ...] = ("frozen", "model", "learner")

ActKind = Literal["rollback", "forget", "release"]
EntryKind = Literal["feedback", "class", ActKind, "forgotten"]
"""What an entry brings: a label for an instance, the name of a class with its descriptions, an act of an admin, or
nothing any more."""

Timed = Callable[[str, str, float], object]
"""Told what took how long: an operation, the part of the store that it was done on, seconds."""

ACTS: tuple[ActKind, ...] = ("rollback", "forget", "release")

NO_CONTENTS: Mapping[str, bytes] = MappingProxyType({})
NO_TRACES: Mapping[int, str] = MappingProxyType({})

Span = tuple[int, int]
"""A first and a last sequence number."""

Taken = Literal["applied", "holdout", "quarantined"]
"""What a version did with an entry that it took."""


class NewEntry(NamedTuple):  # a frozen dataclass takes five times as long to make
    """Feedback, or a class, on its way into the log."""

    instance: bytes | None
    """None where the prediction is gone: then the key must be known already. Empty for a class and an act."""
    label: str
    """The label as JSON; for a class, its name and descriptions; for an act, what is asked for."""
    digest: bytes
    """Fingerprint of what the client sent, to tell a retry from a reused key."""
    kind: EntryKind = "feedback"
    weight: float = 1.0
    key: str | None = None
    """Unique among the feedback of its source, so that nobody can take another's; for a new class, its name."""
    source: str | None = None
    """Who brings it: the name of the key, or the subject of the token, that the request came with."""
    prediction_id: str | None = None
    predicted_by: int | None = None
    """The version that made the prediction."""
    answer: str | None = None
    """What was kept of its answer, as JSON."""
    only_first: bool = False
    """Left out where the prediction has a label already; the append then gives that one's sequence number."""
    trace: str | None = None
    """The traceparent of the request that brings it; see `FeedbackLog.traces`."""


class Entry(NamedTuple):
    """One entry of the feedback log."""

    seq: int
    kind: EntryKind
    instance: bytes
    label: str
    weight: float
    key: str | None
    source: str | None
    prediction_id: str | None
    predicted_by: int | None
    answer: str | None
    replaces: int | None
    """The label that the same prediction had before: this one corrects it."""
    received_at: float
    """Seconds since the epoch; recorded, never computed with."""


class FeedbackLog(Protocol):
    """The write-ahead log: one total order of everything that changes the model."""

    def append(self, entries: Sequence[NewEntry]) -> Future[list[int]]:
        """Append all entries or none; the future gives their sequence numbers once they are on stable storage.

        An entry whose key is known gets the sequence number that the key has; one for a prediction that has a label
        already replaces that. The future raises KeyReused,
        KeyBusy, MissingInstance or StoreUnavailable. Raises LogBusy at once when too much waits already.
        """

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return at most `limit` entries after a sequence number, in order; sequence numbers may have gaps."""

    def fetch(self, seqs: Sequence[int]) -> dict[int, Entry]:
        """Return the entries with these sequence numbers; an unknown one is absent."""

    def kinds(self, seqs: Sequence[int]) -> dict[int, EntryKind]:
        """Return what the entries with these sequence numbers bring, not read as a whole; an unknown one is absent."""

    def find(self, kind: EntryKind, key: str) -> list[int]:
        """Return the sequence numbers of the entries with this key: of feedback, one a source at most; of a class, one."""

    def acts(self, kind: ActKind) -> list[Entry]:
        """Return all acts of a kind, in order."""

    def has_brought(self, source: str) -> bool:
        """Return whether a source has brought anything, be it forgotten since."""

    def brought_by(self, source: str, before: int) -> list[int]:
        """Return the sequence numbers of a source's labels and classes below one, in order; not of those forgotten."""

    def erase(self, seqs: Sequence[int]) -> None:
        """Leave a tombstone of each entry: what it said is nowhere on the disk any more. Raises StoreUnavailable."""

    def traces(self, seqs: Sequence[int]) -> list[str]:
        """Return the traces of the requests that brought these entries, each once, as far as they are still known."""

    def secret(self) -> bytes:
        """Return random bytes that no client knows, the same for as long as the log is."""

    def end(self, within: float = 0.0) -> int:
        """Return the last sequence number, 0 for an empty log.

        What other processes have appended in the last `within` seconds may be missing.
        """

    def wait(self, timeout: float) -> None:
        """Wait until an append in any process rings, or the timeout in seconds is over."""

    def wake(self) -> None:
        """Wake who waits, without an append. Safe in a signal handler."""

    def check_writable(self) -> None:
        """Raise StoreUnavailable if an append would fail."""

    def close(self) -> None:
        """Write what waits and stop."""


class FeatureStore(Protocol):
    """What a frozen encoder says of the instances in the log, by sequence number: a cache, what is lost is worked out again."""

    def put(self, features: Mapping[int, bytes]) -> None:
        """Keep features. Raises StoreUnavailable."""

    def fetch(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the features of these sequence numbers; an unknown one is absent."""

    def erase(self, seqs: Sequence[int]) -> None:
        """Remove features so that they are nowhere on the disk any more. Raises StoreUnavailable."""

    def close(self) -> None:
        """Release what is open."""


class Prediction(NamedTuple):
    """What the join needs to know of a prediction."""

    id: str
    version: int
    instance: bytes
    answer: str
    """What is kept of the answer, as JSON."""
    trace: str | None = None
    """The traceparent of the request that asked for it."""


class PredictionJournal(Protocol):
    """Recent predictions, kept for the join; bounded in age and bytes, and a crash may lose the last moments."""

    def put(self, predictions: Sequence[Prediction]) -> None:
        """Keep predictions, written in the background; what exceeds the bound on waiting bytes is dropped and counted."""

    def get(self, ids: Sequence[str]) -> dict[str, Prediction]:
        """Return the predictions that are known by these ids."""

    def older(self, seconds: float, after: int, limit: int) -> tuple[list[Prediction], int]:
        """Return at most `limit` predictions of at least this age after a place, in order, and the place of the last."""

    def erase(self, ids: Sequence[str], instances: Sequence[bytes]) -> None:
        """Remove predictions with these ids or of these instances so that they are nowhere on the disk any more."""

    def close(self) -> None:
        """Write what waits and stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The row of a version: what its update took, what came of it, and where its checkpoint is."""

    version: int
    parent: int | None
    """The version that it was made of: mostly the one before; an older one after a rollback or a forgetting."""
    updates: int
    """How many updates lie between the initial weights and this version: what its random choices are keyed by."""
    created_at: float
    first_seq: int
    """First and last sequence number that the update took; last < first where it took none."""
    last_seq: int
    applied_seq: int
    """Everything in the log up to here is decided, but for the backlog."""
    backlog: tuple[Span, ...] = ()
    """What is to be learned again after a rollback, in order, before anything after `applied_seq`."""
    act: int | None = None
    """The sequence number of the admin's act that it carries out."""
    steps: Sequence[Sequence[Sequence[int]]]
    """For each optimizer step: the new sequence numbers and the rehearsed ones. The declared ones where it is of classes."""
    weights: Mapping[int, float] = field(default_factory=dict)
    """Sequence number -> the factor on its weight, where the gate set one."""
    held: tuple[int, ...] = ()
    """The sequence numbers that went to the holdout."""
    quarantined: Mapping[int, str] = field(default_factory=dict)
    """Sequence number -> why it was not learned from."""
    gate: Mapping[str, Any] | None = None
    """What the gate decided, and on what grounds."""
    metrics: dict[str, Any]
    by_class: dict[str, Any] | None
    """Metrics per class; kept as long as the checkpoint is."""
    environment: dict[str, Any]
    reason: str
    parts: Mapping[Part, str]
    """SHA-256 of each part of the checkpoint."""
    sha256: str
    """Over the parts: two versions with the same one are the same to the bit."""
    stored: bool = True
    """Whether the checkpoint's parts are still there."""
    superseded: int | None = None
    """The version that took the served line elsewhere; None for one that is on it."""

    def fate(self, seq: int) -> Taken | None:
        """Return what it did with an entry, None where it did not take it."""
        if seq in self.quarantined:
            return "quarantined"
        if seq in self.held:
            return "holdout"
        return "applied" if any(seq in step[0] for step in self.steps) else None


class CheckpointStore(Protocol):
    """Versions and their durable form."""

    def lead(self, waiting: Callable[[], object] | None = None) -> AbstractContextManager[None]:
        """Hold the right to commit while the context lasts.

        Where another holds it, `waiting` is called again and again until that ends; without it, raises LearnerRunning.
        """

    def led(self) -> bool:
        """Return whether somebody holds the right to commit."""

    def initialise(self, shaping: Mapping[str, Any], version: Version) -> None:
        """Record the settings that shape learning together with version 0."""

    def shaping(self) -> dict[str, Any] | None:
        """Return the recorded settings that shape learning, None before `initialise`."""

    def put(self, files: Mapping[Part, bytes]) -> dict[Part, str]:
        """Bring the parts of a checkpoint to stable storage by themselves and return the SHA-256 of each."""

    def commit(
        self,
        versions: Sequence[Version],
        *,
        gate: bytes,
        contents: Mapping[str, bytes] = NO_CONTENTS,
        forgotten: Collection[int] = (),
        traces: Mapping[int, str] = NO_TRACES,
    ) -> None:
        """Make versions and what the gate knows visible as one, and wake the followers: the last of them is served.

        The last has a checkpoint, most of the others have none. `contents` are the parts of these checkpoints by their SHA-256,
        but for those that are in the store already. `forgotten` names what they unlearn: the checkpoints of versions that had
        taken any of it go, unless the served line still leads over them. `traces` are the traceparents of their making.
        """

    def erase(self, seqs: Collection[int]) -> None:
        """Take out what rows say of these entries, so that it is nowhere on the disk any more. Raises StoreUnavailable."""

    def traces(self, after: int, upto: int) -> list[str]:
        """Return the traces of the making of versions after one, up to another, oldest first, as far as they are known."""

    def gate(self) -> bytes | None:
        """Return what the gate knew at the last commit, None before the first that said it."""

    def read(self, sha256: str) -> Memory:
        """Return what a part holds, checked, in memory of the caller's own. Raises CorruptCheckpoint."""

    def mapped(self, sha256: str) -> Memory:
        """Return what a part holds, checked, in memory that processes share where it is large; written to, it is one's own.

        Raises CorruptCheckpoint.
        """

    def latest(self) -> Version | None:
        """Return the newest version, None before the first."""

    def get(self, version: int) -> Version | None:
        """Return a version, None for an unknown one."""

    def page(self, before: int | None, limit: int) -> list[Version]:
        """Return versions from the newest (or the one below `before`) down."""

    def following(self, version: int, limit: int) -> list[Version]:
        """Return versions after one, oldest first."""

    def takers(self, seq: int) -> list[Version]:
        """Return the versions that took an entry, newest first; none while it is pending."""

    def made_by(self, act: int) -> Version | None:
        """Return the version that carries out an act, None while it is pending."""

    def wait(self, timeout: float) -> None:
        """Wait until a commit in any process rings, or the timeout in seconds is over."""

    def wake(self) -> None:
        """Wake who waits, without a commit."""

    def close(self) -> None:
        """Release what is open."""
