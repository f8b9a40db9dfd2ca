"""A model that uses every place of a data directory: its encoder is frozen, so its features are stored; of each checkpoint one
part is a file, and one in the database."""

from __future__ import annotations

import torch
from torch import Tensor

from models.base import Batch, Encoder, OnlineModel
from models.heads.classification import Classification
from models.inputs import Vector

CONFIG = """
[model]
class = "tests.faults.frozen:Frozen"
[store]
checkpoints = 5
[learning]
rehearse = 1
"""


class Projection(Encoder):
    frozen = True  # type: ignore[assignment]  # an attribute is a property that never changes

    def __init__(self) -> None:
        super().__init__()
        self.width = 4096
        self.register_buffer("weight", torch.sin(torch.arange(64.0 * self.width)).reshape(64, self.width))

    def forward(self, batch: Batch) -> Tensor:
        return torch.relu(batch["numbers"].float() @ self.weight / 8)


class Frozen(OnlineModel):
    def __init__(self) -> None:
        encoder = Projection()
        super().__init__(input=Vector(length=64), encoder=encoder, head=Classification(encoder.width, experts=["linear"]))
