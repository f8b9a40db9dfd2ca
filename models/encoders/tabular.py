"""Tabular encoder: vectors and records through online standardisation and hashed embeddings into an MLP."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.base import Encoder
from models.errors import SpecificationError
from models.inputs import Batch, InputKind, Record, Vector
from models.statistics import RunningMoments

Z_LIMIT = 5.0  # a z-score is cut here: an outlier says "large", not "drown all others"


class MLP(Encoder):
    """Standardised numbers, a missing-value flag per record number, and hashed string embeddings, into ReLU layers."""

    def __init__(
        self,
        input: InputKind,
        *,
        hidden: Annotated[
            list[PositiveInt], Field(min_length=1, description="Widths of the hidden layers; the last feeds the head.")
        ] = [128],  # noqa: B006  # read only, and shown as the default in `everlearn init`
        buckets: Annotated[PositiveInt, Field(description="Hash buckets per string field.")] = 1024,
        embedding: Annotated[PositiveInt, Field(description="Width of a string's embedding.")] = 8,
    ) -> None:
        super().__init__()
        if isinstance(input, Vector):
            numbers, strings, self.flags_missing = input.length, 0, False
        elif isinstance(input, Record):
            numbers, strings, self.flags_missing = len(input.numbers), len(input.strings), True
        else:
            raise SpecificationError("model.encoder.name", f"mlp takes vector or record inputs, not {input.kind}")
        self.buckets = buckets
        self.moments = RunningMoments(numbers)
        # One table per string field, one row per bucket, and the last row for a missing value.
        self.tables = nn.ModuleList(nn.Embedding(buckets + 1, embedding) for _ in range(strings))
        widths = [numbers * (1 + self.flags_missing) + strings * embedding, *hidden]
        self.layers = nn.ModuleList(nn.Linear(wide, next_) for wide, next_ in zip(widths, hidden, strict=False))
        self.width = hidden[-1]

    def observe(self, batch: Batch) -> None:
        """Take the batch's numbers into the running moments."""
        self.moments.observe(batch["numbers"])

    def forward(self, batch: Batch) -> Tensor:
        """Return features [batch, width]."""
        z = self.moments.standardise(batch["numbers"], Z_LIMIT)
        parts = [z.nan_to_num(0.0)]  # a missing number is the mean
        if self.flags_missing:
            parts.append(z.isnan().float())
        for column, table in enumerate(self.tables):
            codes = batch["strings"][:, column]
            parts.append(table(torch.where(codes < 0, self.buckets, codes % self.buckets)))
        features = torch.cat(parts, dim=1)  # [batch, numbers + flags + strings * embedding]
        for layer in self.layers:
            features = torch.relu(layer(features))
        return features
