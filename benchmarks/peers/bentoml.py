"""The MLP on BentoML: PORT, and in SERVICE which of these services: a method in the event loop, in a thread, or batched."""

import os
from typing import Any

import bentoml

from benchmarks.peers.mlp import Digits

one_worker = bentoml.service(workers=1, logging={"access": {"enabled": False}})
Instances = list[list[float]]
Answers = list[dict[str, Any]]


@one_worker
class Inline:
    """Coroutines run in the event loop."""

    def __init__(self) -> None:
        self._digits = Digits()

    @bentoml.api
    async def predict(self, instances: Instances) -> Answers:
        return self._digits.answers(instances)


@one_worker
class Threaded:
    """Functions run in a thread."""

    def __init__(self) -> None:
        self._digits = Digits()

    @bentoml.api
    def predict(self, instances: Instances) -> Answers:
        return self._digits.answers(instances)


@one_worker
class Batched:
    """The instances of requests that wait are put together."""

    def __init__(self) -> None:
        self._digits = Digits()

    @bentoml.api(batchable=True, max_batch_size=32)
    async def predict(self, instances: Instances) -> Answers:
        return self._digits.answers(instances)


if __name__ == "__main__":
    service = f"benchmarks.peers.bentoml:{os.environ['SERVICE']}"
    bentoml.serve(service, host="127.0.0.1", port=int(os.environ["PORT"]), blocking=True)
