"""The MLP on Ray Serve: PORT, in MAX_BATCH_SIZE the batch (1: none), in RAY_SERVE_... what its guide says for throughput.

RAY_SERVE_THROUGHPUT_OPTIMIZED makes the replica answer HTTP itself. PORT is HAProxy's, which the guide puts before replicas,
or the replica's own, which is faster: there is one, so that nothing needs to be balanced.
"""

import os
import signal

import orjson
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.mlp import Digits

BATCH = int(os.environ["MAX_BATCH_SIZE"])
PROXIED = os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "1"


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
class Predict:
    """A request is parsed here: Ray Serve hands over what came."""

    def __init__(self) -> None:
        self._digits = Digits()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0)
    async def _batched(self, instances: list[list[float]]) -> list[dict[str, object]]:
        return self._digits.answers(instances)

    async def __call__(self, request: Request) -> Response:
        instances = orjson.loads(await request.body())["instances"]
        answers = self._digits.answers(instances) if BATCH == 1 else [await self._batched(each) for each in instances]
        return Response(orjson.dumps({"predictions": answers}), media_type="application/json")


def main() -> None:
    port = int(os.environ["PORT"])
    if not PROXIED:  # for the processes that `init` starts
        os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] = str(port)
        os.environ["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"] = str(port + 1)
    here = {"_node_ip_address": "127.0.0.1", "_temp_dir": os.getcwd()}
    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False, **here)
    serve.start(http_options={"host": "127.0.0.1", "port": port if PROXIED else 0})
    serve.run(Predict.bind(), route_prefix="/predict", logging_config={"enable_access_log": False})
    signal.pause()


if __name__ == "__main__":
    main()
