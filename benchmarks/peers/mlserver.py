"""The MLP on MLServer: PORT, and in MLSERVER_... its settings."""

import asyncio
import os

import torch
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.utils import install_uvloop_event_loop

from benchmarks.peers.mlp import LABELS, TOP, Digits


class Predict(MLModel):
    """Instances come, and labels with their scores go, as tensors of the Open Inference Protocol."""

    async def load(self) -> bool:
        self._digits = Digits()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (instances,) = payload.inputs
        scores, picked = self._digits.top(torch.tensor(instances.data.root, dtype=torch.float32).reshape(instances.shape))
        labels = [LABELS[index] for row in picked for index in row]
        shape = [len(picked), TOP]
        outputs = [
            ResponseOutput(name="labels", shape=shape, datatype="BYTES", data=labels),
            ResponseOutput(name="scores", shape=shape, datatype="FP32", data=[score for row in scores for score in row]),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main() -> None:
    port = int(os.environ["PORT"])
    settings = Settings(host="127.0.0.1", http_port=port, grpc_port=0, metrics_port=0, debug=False, gzip_enabled=False)
    await MLServer(settings).start([ModelSettings(name="digits", implementation="benchmarks.peers.mlserver.Predict")])


if __name__ == "__main__":
    install_uvloop_event_loop()
    asyncio.run(main())
