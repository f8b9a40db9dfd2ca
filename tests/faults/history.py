"""Clients that write down all they ask and hear, and the checker that holds it against the store."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog
from service.verify import consumed, verify_versions
from tests.running import RunningService

Items = Sequence[tuple[Any, Any]]

EXPECTED = {200, 202, 409, 422, 429, 503}
"""No classes yet, a prediction that the journal lost, and "come again" are answers; nothing else is."""


@dataclass(frozen=True, slots=True)
class Event:
    """One request and what became of it."""

    connection: str
    path: str
    status: int | None
    """None where the connection broke before an answer."""
    key: str | None = None
    seq: int | None = None
    version: int | None = None
    """The version that the answer names."""
    body: str = ""


class Client:
    """Predicts, labels what was predicted and other instances with keys, and tries each until it is acknowledged."""

    def __init__(self, service: RunningService, items: Items, name: str, pause: float) -> None:
        self.events: list[Event] = []
        self.acknowledged = 0
        self._service = service
        self._items = items
        self._name = name
        self._pause = pause
        self._choices = random.Random(name)
        self._connections = 0
        self._http: httpx.Client | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"client-{name}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()

    def _run(self) -> None:
        for number in range(10**9):
            instance, label = self._items[number % len(self._items)]
            item: dict[str, Any] = {"label": label, "key": f"{self._name}{number}"}
            predicted = self._ask("/predict", {"instances": [instance]})
            if predicted is not None and self._choices.random() < 0.5:
                item["prediction_id"] = predicted["predictions"][0]["id"]
            else:
                item["instance"] = instance
            self._teach(item, instance)
            if self._choices.random() < 0.15:
                self._teach(item, instance)  # a retry of what went well
            if self._stopping:
                break
            time.sleep(self._pause)
        if self._http is not None:
            self._http.close()

    def _teach(self, item: dict[str, Any], instance: Any) -> None:
        while not self._stopping and self._ask("/feedback", {"feedback": [item]}) is None:
            if self.events[-1].status == 422:  # the prediction was lost, and the key is new
                item.pop("prediction_id", None)
                item["instance"] = instance
            elif self.events[-1].status != 200:
                time.sleep(0.02)

    def _ask(self, path: str, body: Any) -> dict[str, Any] | None:
        """Return the answer, None where it is not what was asked for."""
        key = body["feedback"][0]["key"] if path == "/feedback" else None
        try:
            if self._http is None:
                self._http = self._service.client()
            answer = self._http.post(path, json=body, extensions={"trace": self._count_connections})
        except httpx.HTTPError:
            self.events.append(Event(self._connection, path, None, key))
            with suppress(httpx.HTTPError):
                assert self._http is not None
                self._http.close()
            self._http = None
            time.sleep(0.02)
            return None
        given = answer.json() if answer.is_success else {}
        self.acknowledged += bool(key is not None and given)
        seq = given["accepted"][0]["seq"] if key is not None and given else None
        version = given.get("model_version")
        self.events.append(Event(self._connection, path, answer.status_code, key, seq, version, answer.text[:300]))
        return given or None

    @property
    def _connection(self) -> str:
        return f"{self._name}#{self._connections}"

    def _count_connections(self, event: str, _: object) -> None:
        # One that the server closed is opened anew in silence, maybe to another worker.
        self._connections += event == "connection.connect_tcp.complete"


@contextmanager
def clients(
    service: RunningService, items: Items, *, count: int = 3, pause: float = 0.01, prefix: str = ""
) -> Iterator[list[Client]]:
    """Have clients at work while the context lasts."""
    working = [Client(service, items, f"{prefix}{name}", pause) for name in "abcdefgh"[:count]]
    for client in working:
        client.start()
    try:
        yield working
    finally:
        for client in working:
            client.stop()


@dataclass(frozen=True, slots=True)
class Found:
    """What the checker counted."""

    acknowledged: int
    versions: int
    quarantined: int
    unanswered: int


def check(data: Path, events: Sequence[Event]) -> Found:
    """Hold what clients heard against the log and the versions. Fails with what is wrong."""
    directory = DataDirectory(data).open()
    feedback, checkpoints = EmbeddedFeedbackLog(directory), EmbeddedCheckpointStore(directory, keep=2)
    entries = feedback.read(0, 10**9)
    learned = consumed(checkpoints)
    rows = {row.version: row for row in checkpoints.page(None, 10**9)}
    feedback.close()
    checkpoints.close()

    unexpected = [event for event in events if event.status is not None and event.status not in EXPECTED]
    assert not unexpected, f"{len(unexpected)} answers that are not documented: {unexpected[:3]}"
    acknowledged = acknowledged_keys(events)
    by_key = {entry.key: entry.seq for entry in entries}
    lost = {key: seq for key, seq in acknowledged.items() if by_key.get(key) != seq}
    assert not lost, f"{len(lost)} acknowledged items are missing or elsewhere: {dict(list(lost.items())[:3])}"
    assert len(by_key) == len(entries), "a key has two entries"
    twice = [seq for seq, times in learned.items() if times > 1]
    assert not twice, f"{len(twice)} entries were applied twice: {twice[:3]}"
    assert learned.keys() == {entry.seq for entry in entries}, "an entry was not applied, or what is no entry was"
    _check_versions(events, set(rows))
    assert verify_versions(data), "a version differs from its replay"
    quarantined = sum(len(row.quarantined) for row in rows.values())
    return Found(len(acknowledged), len(rows), quarantined, sum(event.status is None for event in events))


def acknowledged_keys(events: Sequence[Event]) -> dict[str, int]:
    """Return the sequence number of each key that was acknowledged: always the same one."""
    given: dict[str, Counter[int]] = defaultdict(Counter)
    for event in events:
        if event.key is not None and event.seq is not None:
            given[event.key][event.seq] += 1
    contradictions = {key: dict(seqs) for key, seqs in given.items() if len(seqs) > 1}
    assert not contradictions, f"keys with several sequence numbers: {contradictions}"
    return {key: next(iter(seqs)) for key, seqs in given.items()}


def _check_versions(events: Sequence[Event], committed: set[int]) -> None:
    """Each version that a client saw was durable: it is there after the kills; on one connection they move forward."""
    newest: dict[str, int] = {}
    for event in events:
        if event.version is not None:
            assert event.version in committed, f"version {event.version} was served and is not committed"
            seen = newest.get(event.connection, -1)
            assert event.version >= seen, f"{event.connection} saw version {event.version} after {seen}"
            newest[event.connection] = event.version
