"""A model of a user's own that takes a while to be made, as a large one does."""

from __future__ import annotations

import time

from models.base import OnlineModel
from models.encoders.tabular import Tabular
from models.heads.classification import Classification
from models.inputs import Vector

SECONDS = 2.5


class Slow(OnlineModel):
    def __init__(self) -> None:
        time.sleep(SECONDS)
        kind = Vector(length=64)
        encoder = Tabular(kind)
        super().__init__(input=kind, encoder=encoder, head=Classification(encoder.width, experts=["linear"]))
