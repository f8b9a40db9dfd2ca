"""Clients that predict and teach without a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

import httpx

from tests.running import wait_for


class Load:
    """Clients of the gateway that ask and teach until they are stopped; every answer is counted."""

    def __init__(self, client: Callable[[], httpx.Client], instance: Any, clients: int = 4, prefix: str = "key") -> None:
        self.answers: list[int] = []
        self.resent = 0
        self._prefix = prefix
        self.failures: list[str] = []
        self.seqs: list[int] = []
        self._client = client
        self._body = {"instances": [instance]}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.answers) > 20, "the load to begin")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait for as many further answers."""
        goal = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= goal, "further answers")

    def _ask(self, client_number: int) -> None:
        turn = 0
        with self._client() as client:
            while not self._stopping.is_set():
                turn += 1
                try:
                    predicted = self._told(client.post("/predict", json=self._body))
                    key = {"Idempotency-Key": f"{self._prefix}-{client_number}-{turn}"}
                    item = {"prediction_id": predicted["predictions"][0]["id"], "label": "one"}
                    answer = client.post("/feedback", json={"feedback": [item]}, headers=key)
                    if "unknown-prediction" in answer.text:  # the answer says what to do
                        self.resent += 1
                        item = {"instance": self._body["instances"][0], "label": "one"}
                        answer = client.post("/feedback", json={"feedback": [item]}, headers=key)
                    taught = self._told(answer)
                    self.seqs.append(taught["log_seq"])
                except (httpx.TransportError, KeyError) as failure:
                    self.failures.append(repr(failure))

    def _told(self, answer: httpx.Response) -> dict[str, Any]:
        self.answers.append(answer.status_code)
        if answer.status_code not in (200, 202):
            self.failures.append(answer.text)
        told: dict[str, Any] = answer.json()
        return told
