"""Tabular encoder: vectors and records as features that linear models, networks and distances can all work with."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from models.base import Encoder
from models.errors import SpecificationError
from models.inputs import FLOAT_LIMIT, Batch, InputKind, Record, Vector
from models.quantiles import PiecewiseLinear
from models.statistics import RunningMoments
from models.vocabulary import Vocabulary

Z_LIMIT = 5.0  # a z-score is cut here: an outlier says "large", not "drown all others"
MOST_COLUMNS = 256  # of the piecewise linear encoding: with many numbers, each gets fewer bins


class Tabular(Encoder):
    """Numbers standardised and piecewise linear, strings one-hot and embedded, missing values flagged.

    The plain features come first: z-scores, flags of missing values (of a record), one-hot strings. What expands them
    follows: the piecewise linear encoding of the numbers, hashed embeddings of the strings. With `hidden`, ReLU layers
    stand on top and their output is the features.
    """

    def __init__(
        self,
        input: InputKind,
        *,
        bins: Annotated[
            NonNegativeInt, Field(description="Bins of a number's piecewise linear encoding at most; 0 leaves it out.")
        ] = 16,
        one_hot: Annotated[
            NonNegativeInt, Field(description="Distinct strings of a field that get a column of their own; 0 for none.")
        ] = 32,
        buckets: Annotated[PositiveInt, Field(description="Hash buckets per string field.")] = 1024,
        embedding: Annotated[PositiveInt, Field(description="Width of a string's embedding.")] = 8,
        hidden: Annotated[
            list[PositiveInt], Field(description="Widths of ReLU layers on top; none where the head has experts for that.")
        ] = [],  # noqa: B006  # read only, and shown as the default in `everlearn init`
    ) -> None:
        super().__init__()
        if isinstance(input, Vector):
            numbers, strings, self.flags_missing = input.length, 0, False
        elif isinstance(input, Record):
            numbers, strings, self.flags_missing = len(input.numbers), len(input.strings), True
        else:
            raise SpecificationError("model.encoder.name", f"tabular takes vector or record inputs, not {input.kind}")
        self.strings = strings
        self.buckets = buckets
        self.moments = RunningMoments(numbers)
        self.vocabulary = Vocabulary(strings, size=one_hot)
        affordable = max(2, MOST_COLUMNS // max(1, numbers))
        self.piecewise = PiecewiseLinear(numbers, bins=min(bins, affordable)) if bins and numbers else None
        # One table per string field, one row per bucket, and the last row for a missing value.
        self.tables = nn.ModuleList(nn.Embedding(buckets + 1, embedding) for _ in range(strings))
        plain = numbers + (numbers + strings if self.flags_missing else 0) + self.vocabulary.width
        expanded = (self.piecewise.width if self.piecewise else 0) + strings * embedding
        widths = [plain + expanded, *hidden]
        self.layers = nn.ModuleList(nn.Linear(wide, next_) for wide, next_ in zip(widths, hidden, strict=False))
        self.width = widths[-1]
        self.plain = self.width if hidden else plain

    def observe(self, batch: Batch) -> None:
        """Take the batch's numbers and strings into the running statistics."""
        numbers = batch["numbers"].clamp(-FLOAT_LIMIT, FLOAT_LIMIT)
        self.moments.observe(numbers)
        if self.piecewise is not None:
            self.piecewise.observe(numbers)
        if self.strings:
            self.vocabulary.observe(batch["strings"])

    def means(self) -> Tensor:
        """Return the running mean of each number, float64 [numbers]."""
        return self.moments.mean

    def forward(self, batch: Batch) -> Tensor:
        """Return features [batch, width]."""
        parts = [*self._plain(batch), *self._expanded(batch)]
        features = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for layer in self.layers:
            features = torch.relu(layer(features))
        return features

    def _plain(self, batch: Batch) -> list[Tensor]:
        z = self.moments.standardise(batch["numbers"], Z_LIMIT)
        if not self.flags_missing:
            return [z]
        parts = [z.nan_to_num(0.0), z.isnan().float()]  # a missing number is the mean
        if self.strings:
            parts += [(batch["strings"] < 0).float(), self.vocabulary(batch["strings"])]
        return parts

    def _expanded(self, batch: Batch) -> list[Tensor]:
        parts = [] if self.piecewise is None else [self.piecewise(batch["numbers"])]
        for column, table in enumerate(self.tables):
            codes = batch["strings"][:, column]
            parts.append(table(torch.where(codes < 0, self.buckets, codes % self.buckets)))
        return parts
