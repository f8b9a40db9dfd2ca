"""The MLP on LitServe: PORT, and in MAX_BATCH_SIZE, BATCH_TIMEOUT and FAST_QUEUE its settings.

Its release 0.2.19 ignores `fast_queue`, and wires the queue's two ends the wrong way round (its issue 751): FAST_QUEUE=repaired
does both as its pull request 752 does.
"""

import os
from typing import Any

import litserve
from litserve.transport import factory
from litserve.transport.zmq_transport import ZMQTransport

from benchmarks.peers.mlp import Digits


class Predict(litserve.LitAPI):
    """A request is its list of instances; a batch is the instances of requests of one each."""

    def setup(self, device: str) -> None:
        self._digits = Digits()

    # No annotations where a request comes and an answer goes: LitServe would make schemas of them, and validate.
    def decode_request(self, request):
        return request["instances"]

    def batch(self, inputs: list[list[list[float]]]) -> list[list[float]]:
        return [instance for (instance,) in inputs]

    def predict(self, x: list[list[float]]) -> list[dict[str, Any]]:
        return self._digits.answers(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return [[answer] for answer in output]

    def encode_response(self, output):
        return {"predictions": output}


def queue(_config: factory.TransportConfig) -> ZMQTransport:
    broker = factory.Broker()
    broker.start()
    return ZMQTransport(backend_address=broker.backend_address, frontend_address=broker.frontend_address)


def main() -> None:
    api = Predict(
        max_batch_size=int(os.environ["MAX_BATCH_SIZE"]),
        batch_timeout=float(os.environ["BATCH_TIMEOUT"]),
        api_path="/predict",
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    if os.environ["FAST_QUEUE"] == "repaired":
        server.transport_config.transport_type = "zmq"
        factory._create_zmq_transport = queue
    port = int(os.environ["PORT"])
    server.run(host="127.0.0.1", port=port, log_level="warning", access_log=False, generate_client_file=False)


if __name__ == "__main__":
    main()
