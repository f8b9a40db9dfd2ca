"""An encoder that reads a text byte by byte, for heads that write."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.base import Batch, Encoder
from models.errors import SpecificationError
from models.inputs import InputKind, Text

BYTES = 256


class Read(NamedTuple):
    """What has been read of a batch of texts, padded behind to the longest."""

    source: Tensor
    """The bytes, int64 [batch, length]."""
    there: Tensor
    """Which of them are there, bool [batch, length]."""
    memory: Tensor
    """What each says where it stands, [batch, length, width]."""
    summary: Tensor
    """The whole text, [batch, width]."""


class Reader(Encoder):
    """A bidirectional gated recurrent unit over bytes (Cho et al. 2014): any language, and no vocabulary."""

    gives = "read texts"

    def __init__(
        self,
        input: InputKind,
        *,
        embedding: Annotated[PositiveInt, Field(description="Width of a byte's embedding.")] = 48,
        state: Annotated[PositiveInt, Field(description="Width of the recurrent state, in each direction.")] = 96,
    ) -> None:
        super().__init__()
        if not isinstance(input, Text):
            raise SpecificationError("model.encoder.name", f"reader takes text inputs, not {input.kind}")
        self.table = nn.Embedding(BYTES, embedding)
        self.recurrent = nn.GRU(embedding, state, batch_first=True, bidirectional=True)
        self.width = 2 * state

    def forward(self, batch: Batch) -> Read:
        """Read uint8 texts [batch, longest]; an empty one is read as one byte 0 that is not there."""
        source, count = batch["text"].long(), batch["bytes"]
        if source.shape[1] == 0:
            source = source.new_zeros(len(source), 1)
        there = torch.arange(source.shape[1], device=count.device) < count.unsqueeze(1)
        packed = nn.utils.rnn.pack_padded_sequence(  # what is padded must not be read backwards into the text
            self.table(source), count.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        states, last = self.recurrent(packed)
        memory: Tensor = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])[0]
        return Read(source, there, memory, torch.cat([last[0], last[1]], 1))
