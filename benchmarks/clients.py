"""What a call costs: httpx, the Python client with lists and with an array, and tritonclient in JSON and in binary.

On the digits' configuration.

`python -m benchmarks.clients`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import numpy as np
import tritonclient.http as triton

from service.client import Client
from service.demo.digits import config
from tests.running import RunningService, learn

ROUNDS, CALLS = 5, 100
SIZES = (1, 64, 256)  # instances of a call


def main() -> None:
    """Print the median time of a call by each way, the best of some rounds that are taken in turns."""
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(RunningService(folder, config()))
        http = stack.enter_context(service.client())
        client = stack.enter_context(Client(service.url))
        server = stack.enter_context(closing(triton.InferenceServerClient(service.url.removeprefix("http://"))))
        learn(http, [(rng.random(64).tolist(), str(number % 10)) for number in range(50)])
        for size in SIZES:
            ways = _ways(rng.random((size, 64), dtype=np.float32), http, client, server)
            rounds = [{name: _median(way) for name, way in ways.items()} for _ in range(ROUNDS)]
            best = {name: min(each[name] for each in rounds) for name in ways}
            print(f"{size:4} instances  " + "  ".join(f"{name} {1000 * taken:.3f} ms" for name, taken in best.items()))


def _ways(
    numbers: np.ndarray, http: httpx.Client, client: Client, server: triton.InferenceServerClient
) -> dict[str, Callable[[], object]]:
    rows = numbers.tolist()

    def infer(*, binary: bool) -> Callable[[], object]:
        asked = triton.InferInput("vector", list(numbers.shape), "FP32")
        asked.set_data_from_numpy(numbers, binary_data=binary)
        outputs = [triton.InferRequestedOutput(name, binary) for name in ("label", "prediction_id")]
        return lambda: server.infer("everlearn", [asked], outputs=outputs, parameters={"top_k": 1})

    return {
        "httpx": lambda: http.post("/predict", json={"instances": rows, "top_k": 1}).json(),
        "client": lambda: client.predict(rows, top_k=1),
        "client, array": lambda: client.predict(numbers, top_k=1),
        "infer, JSON": infer(binary=False),
        "infer, binary": infer(binary=True),
    }


def _median(way: Callable[[], object]) -> float:
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
