"""Models of a user's own: one tells how its encoder runs, one has instances of no fixed size."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from models.base import Batch, Encoder, OnlineModel
from models.encoders.convolutional import Convolutional
from models.heads.classification import Classification
from models.inputs import Picture
from models.sequences import Events

log = logging.getLogger(__name__)


class TellingEncoder(Convolutional):
    """Logs that it runs uncompiled. A compiler that traces it sees none of that: `is_compiling` is true to it."""

    def forward(self, batch: Batch) -> Tensor:
        if not torch.compiler.is_compiling():
            log.warning("it runs uncompiled")
        return super().forward(batch)


class Telling(OnlineModel):
    def __init__(self) -> None:
        kind = Picture(size=16)
        encoder = TellingEncoder(kind, channels=[8])
        super().__init__(input=kind, encoder=encoder, head=Classification(encoder.width, experts=["linear"]))


class Bag(Encoder):
    """The mean of the embeddings of a sequence's events, of which there may be any number."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, self.width)

    def forward(self, batch: Batch) -> Tensor:
        there = (batch["events"] >= 0).unsqueeze(2)  # [batch, longest, 1]
        return (self.table(batch["events"] % 64) * there).sum(1) / there.sum(1).clamp(min=1)


class Bags(OnlineModel):
    def __init__(self, *, classes: list[str]) -> None:
        encoder = Bag()
        head = Classification(encoder.width, experts=["linear"], classes=classes)
        super().__init__(input=Events(), encoder=encoder, head=head)
