"""A model of a user's own whose answers can't be made."""

from __future__ import annotations

from typing import Any

from models.base import OnlineModel
from models.encoders.tabular import Tabular
from models.heads.classification import Classification
from models.inputs import Vector


class FailingHead(Classification):
    def answers(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no answer")


class Failing(OnlineModel):
    def __init__(self) -> None:
        kind = Vector(length=1)
        encoder = Tabular(kind, hidden=[4])
        super().__init__(input=kind, encoder=encoder, head=FailingHead(encoder.width, experts=["linear"]))
