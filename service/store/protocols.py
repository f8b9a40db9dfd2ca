"""What a store must provide, and the plain data that goes in and out. Stores know bytes, not tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Part = Literal["frozen", "model", "learner"]
"""The files of a checkpoint: what no update changes, what the engine needs, what only the learner needs."""

PARTS: tuple[Part, ...] = ("frozen", "model", "learner")

EntryKind = Literal["feedback", "class"]
"""What an entry brings: a label for an instance, or the name of a class with its descriptions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """Feedback, or a class, on its way into the log."""

    kind: EntryKind = "feedback"
    instance: bytes | None
    """None where the prediction is gone: then the key must be known already. Empty for a class."""
    label: str
    """The label as JSON; for a class, its name and descriptions."""
    digest: bytes
    """Fingerprint of what the client sent, to tell a retry from a reused key."""
    weight: float = 1.0
    key: str | None = None
    """Unique among the entries of its kind; for a new class, its name."""
    prediction_id: str | None = None
    predicted_by: int | None = None
    """The version that made the prediction."""
    answer: str | None = None
    """What was kept of its answer, as JSON."""
    only_first: bool = False
    """Left out where the prediction has a label already; the append then gives that one's sequence number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the feedback log."""

    seq: int
    kind: EntryKind
    instance: bytes
    label: str
    weight: float
    key: str | None
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

    def find(self, kind: EntryKind, key: str) -> int | None:
        """Return the sequence number of the entry that has this key, None where there is none."""

    def end(self) -> int:
        """Return the last sequence number, 0 for an empty log."""

    def wait(self, timeout: float) -> None:
        """Wait until an append in any process rings, or the timeout in seconds is over."""

    def wake(self) -> None:
        """Wake who waits, without an append. Safe in a signal handler."""

    def check_writable(self) -> None:
        """Raise StoreUnavailable if an append would fail."""

    def close(self) -> None:
        """Write what waits and stop."""


class FeatureStore(Protocol):
    """What a frozen encoder said of the instances in the log, by sequence number: the bits that learning went on with."""

    def put(self, features: Mapping[int, bytes]) -> None:
        """Bring features to stable storage, before the version that was made with them. Raises StoreUnavailable."""

    def fetch(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the features of these sequence numbers; an unknown one is absent."""

    def close(self) -> None:
        """Release what is open."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the join needs to know of a prediction."""

    id: str
    version: int
    instance: bytes
    answer: str
    """What is kept of the answer, as JSON."""


class PredictionJournal(Protocol):
    """Recent predictions, kept for the join; bounded in age and bytes, and a crash may lose the last moments."""

    def put(self, predictions: Sequence[Prediction]) -> None:
        """Keep predictions, written in the background; what exceeds the bound on waiting bytes is dropped and counted."""

    def get(self, ids: Sequence[str]) -> dict[str, Prediction]:
        """Return the predictions that are known by these ids."""

    def older(self, seconds: float, after: int, limit: int) -> tuple[list[Prediction], int]:
        """Return at most `limit` predictions of at least this age after a place, in order, and the place of the last."""

    def close(self) -> None:
        """Write what waits and stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The row of a version: what its update took, what came of it, and where its checkpoint is."""

    version: int
    parent: int | None
    created_at: float
    first_seq: int
    """First and last sequence number that the update consumed; last < first where it consumed none."""
    last_seq: int
    steps: list[list[list[int]]]
    """For each optimizer step: the new sequence numbers and the rehearsed ones."""
    quarantined: dict[int, str]
    """Sequence number -> why it was not learned from."""
    metrics: dict[str, Any]
    by_class: dict[str, Any] | None
    """Metrics per class; kept as long as the checkpoint is."""
    environment: dict[str, Any]
    reason: str
    parts: Mapping[Part, str]
    """SHA-256 of each file of the checkpoint."""
    sha256: str
    """Over the parts: two versions with the same one are the same to the bit."""
    stored: bool = True
    """Whether the checkpoint's files are still there."""


class CheckpointStore(Protocol):
    """Versions and their durable form."""

    def lead(self) -> AbstractContextManager[None]:
        """Hold the right to commit while the context lasts. Raises LearnerRunning."""

    def initialise(self, shaping: Mapping[str, Any], version: Version) -> None:
        """Record the settings that shape learning together with version 0."""

    def shaping(self) -> dict[str, Any] | None:
        """Return the recorded settings that shape learning, None before `initialise`."""

    def put(self, data: bytes) -> str:
        """Bring a file of a checkpoint to stable storage and return its SHA-256."""

    def commit(self, version: Version) -> None:
        """Make a version, its applied sequence number and its checkpoint visible as one, and wake the followers."""

    def path(self, sha256: str) -> Path:
        """Return a local file with this content, checked. Raises CorruptCheckpoint."""

    def latest(self) -> Version | None:
        """Return the newest version, None before the first."""

    def get(self, version: int) -> Version | None:
        """Return a version, None for an unknown one."""

    def page(self, before: int | None, limit: int) -> list[Version]:
        """Return versions from the newest (or the one below `before`) down."""

    def following(self, version: int, limit: int) -> list[Version]:
        """Return versions after one, oldest first."""

    def consumer_of(self, seq: int) -> Version | None:
        """Return the version whose update consumed a sequence number, None while it is pending."""

    def wait(self, timeout: float) -> None:
        """Wait until a commit in any process rings, or the timeout in seconds is over."""

    def close(self) -> None:
        """Release what is open."""
