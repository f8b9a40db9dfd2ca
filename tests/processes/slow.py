"""Models of a user's own that take a while, as large ones do: to be made, and for a step."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from models.base import Label, OnlineModel
from models.encoders.tabular import Tabular
from models.heads.classification import Classification
from models.inputs import Vector

SECONDS = 2.5
STEP_SECONDS = 0.5


class Slow(OnlineModel):
    def __init__(self) -> None:
        time.sleep(SECONDS)
        kind = Vector(length=64)
        encoder = Tabular(kind)
        super().__init__(input=kind, encoder=encoder, head=Classification(encoder.width, experts=["linear"]))


class Thorough(Classification):
    def loss(self, features: Tensor, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        time.sleep(STEP_SECONDS)
        return super().loss(features, labels, fresh)


class SlowToLearn(OnlineModel):
    def __init__(self) -> None:
        kind = Vector(length=64)
        encoder = Tabular(kind)
        super().__init__(input=kind, encoder=encoder, head=Thorough(encoder.width, experts=["linear"]))
