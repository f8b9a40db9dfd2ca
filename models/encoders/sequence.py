"""Sequence encoder: what the latest events of somebody say of the next one."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.base import Batch, Encoder
from models.errors import SpecificationError
from models.inputs import InputKind
from models.sequences import Events
from models.vocabulary import Vocabulary

LATEST = 2  # events that have columns of their own: what a Markov chain of that order knows


class Recurrent(Encoder):
    """A gated recurrent unit (Cho et al. 2014) over hashed event embeddings, beside the latest two events one-hot.

    The one-hot events are the plain features: a linear expert on them learns the frequent transitions at once, while the
    network behind the recurrent state learns what came longer ago.
    """

    def __init__(
        self,
        input: InputKind,
        *,
        one_hot: Annotated[PositiveInt, Field(description="Distinct events that get a column of their own.")] = 64,
        buckets: Annotated[PositiveInt, Field(description="Hash buckets of the event embeddings.")] = 4096,
        embedding: Annotated[PositiveInt, Field(description="Width of an event's embedding.")] = 32,
        state: Annotated[PositiveInt, Field(description="Width of the recurrent state.")] = 64,
    ) -> None:
        super().__init__()
        if not isinstance(input, Events):
            raise SpecificationError("model.encoder.name", f"sequence takes sequence inputs, not {input.kind}")
        self.buckets = buckets
        self.vocabulary = Vocabulary(LATEST, size=one_hot)
        self.table = nn.Embedding(buckets, embedding)
        self.recurrent = nn.GRU(embedding, state, batch_first=True)
        self.plain = LATEST * one_hot
        self.width = self.plain + state

    def observe(self, batch: Batch) -> None:
        """Give columns to events that have none yet."""
        self.vocabulary.observe(_latest(batch))

    def forward(self, batch: Batch) -> Tensor:
        """Return features [batch, width]."""
        return torch.cat([self.vocabulary(_latest(batch)), self._state(batch)], 1)

    def _state(self, batch: Batch) -> Tensor:
        """Return the recurrent state after the last event, [batch, state]; zeros where there was none."""
        events, count = batch["events"], batch["count"]
        if events.shape[1] == 0:
            return self.table.weight.new_zeros(len(events), self.recurrent.hidden_size)
        states: Tensor = self.recurrent(self.table(events.clamp(min=0) % self.buckets))[0]  # [batch, longest, state]
        last = (count - 1).clamp(min=0)
        return states[torch.arange(len(events), device=last.device), last] * (count > 0).unsqueeze(1)


def _latest(batch: Batch) -> Tensor:
    """Return the codes of the latest events, the last one first, int64 [batch, LATEST]; -1 where there was none."""
    places = batch["count"].unsqueeze(1) - 1 - torch.arange(LATEST, device=batch["count"].device)  # [batch, LATEST]
    if batch["events"].shape[1] == 0:
        return torch.full_like(places, -1)
    return torch.where(places >= 0, batch["events"].gather(1, places.clamp(min=0)), -1)
