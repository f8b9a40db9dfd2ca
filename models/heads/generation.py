"""Texts as answers: what is read is written anew, byte by byte; for translating, summarising, rewriting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Answer, Label
from models.encoders.reading import BYTES, Read
from models.errors import LabelError
from models.heads.writing import Writing, masked_means, ranked

END, START = BYTES, BYTES + 1  # tokens beside the bytes
TINY = 1e-9


class Seen(NamedTuple):
    """What the writer looks at of what was read, the same for every byte that it writes."""

    memory: Tensor
    """[batch, length, width]."""
    visible: Tensor
    """Where it may look, bool [batch, 1, length]: at one place of an empty text too, or there would be nothing to attend to."""
    tokens: Tensor
    """What may be copied from each place, [batch, length, BYTES + 1]."""
    something: Tensor
    """Whether there is anything to copy, bool [batch, 1, 1]."""


class Generation(Writing):
    """A gated recurrent unit that writes bytes, attends to what was read (Luong et al. 2015) and may copy it (See et al. 2017).

    It writes greedily or by beam search.
    """

    takes = "read texts"

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        embedding: Annotated[PositiveInt, Field(description="Width of a byte's embedding.")] = 48,
        state: Annotated[PositiveInt, Field(description="Width of the recurrent state.")] = 192,
        max_bytes: Annotated[
            int, Field(ge=1, le=4096, description="Length of an answer in UTF-8 at most; a longer label is refused.")
        ] = 256,
        beams: Annotated[int, Field(ge=1, le=16, description="Texts that are followed at once; 1 writes greedily.")] = 1,
    ) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        self.beams = beams
        self.table = nn.Embedding(BYTES + 2, embedding)
        self.first = nn.Linear(width, state)
        self.recurrent = nn.GRU(embedding, state, batch_first=True)
        self.asks = nn.Linear(state, width, bias=False)
        self.joins = nn.Linear(state + width, state)
        self.writes = nn.Linear(state, BYTES + 1)
        self.copies = nn.Linear(state, 1)

    def forward(self, features: Read) -> Read:
        """Return what was read: `answers` writes, as many texts as it is asked for."""
        return features

    def parse_label(self, value: str) -> str:
        """Return the text. Raises LabelError for one that is too long, or has half a character."""
        size = len(super().parse_label(value).encode())
        if size > self.max_bytes:
            raise LabelError(f"the text has {size} bytes, the limit is {self.max_bytes}")
        return value

    def log_losses(self, outputs: Read, labels: Sequence[Label]) -> Tensor:
        """Return the mean log loss of each label's bytes and its end, [batch]."""
        inputs, targets, there = self._forced(labels)
        log_probabilities, _ = self._write(_seen(outputs), self.table(inputs), self._begin(outputs))
        return masked_means(-log_probabilities.gather(2, targets.unsqueeze(2)).squeeze(2), there)

    def _forced(self, labels: Sequence[Label]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens before each byte of the labels, these bytes with the end, and which are there, [batch, length]."""
        coded = [list(label.encode()) for label in labels]
        longest = max(map(len, coded)) + 1
        device = self.table.weight.device
        inputs = torch.tensor([[START, *each] + [END] * (longest - len(each) - 1) for each in coded], device=device)
        targets = torch.tensor([[*each, END] + [END] * (longest - len(each) - 1) for each in coded], device=device)
        sizes = torch.tensor([len(each) + 1 for each in coded], device=device)
        return inputs, targets, torch.arange(longest, device=device) < sizes.unsqueeze(1)

    def _begin(self, read: Read) -> Tensor:
        """Return the state before the first byte, [1, batch, state]."""
        begun: Tensor = self.first(read.summary).tanh().unsqueeze(0)
        return begun

    def _write(self, seen: Seen, embedded: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return log probabilities of the next tokens, [batch, steps, BYTES + 1], and the state behind them."""
        states, state = self.recurrent(embedded, state)  # [batch, steps, state]
        attention = self.asks(states) @ seen.memory.transpose(1, 2) / math.sqrt(seen.memory.shape[2])
        weights = attention.masked_fill(~seen.visible, -torch.inf).softmax(2)  # [batch, steps, length]
        joined = self.joins(torch.cat([states, weights @ seen.memory], 2)).tanh()
        written = self.writes(joined).softmax(2)
        copied = weights @ seen.tokens  # [batch, steps, BYTES + 1]
        share = self.copies(joined).sigmoid() * seen.something
        return ((1 - share) * written + share * copied + TINY).log(), state

    def search(self, outputs: Read, beams: int) -> list[list[Answer]]:
        """Write for each item: the different texts that beam search finds, with their scores, best first."""
        batch = len(outputs.source)
        device = outputs.source.device
        wide = Read(*(part.repeat_interleave(beams, 0) for part in outputs))
        seen, state = _seen(wide), self._begin(wide)
        tokens = torch.full((batch, beams, 1), START, device=device)
        scores = torch.full((batch, beams), -torch.inf, device=device)
        scores[:, 0] = 0  # all begin alike: one of them is enough
        only_end = torch.full((BYTES + 1,), -torch.inf, device=device)
        only_end[END] = 0
        rows = torch.arange(batch, device=device).unsqueeze(1) * beams
        for _ in range(self.max_bytes):
            ended = (tokens[:, :, -1] == END).unsqueeze(2)
            if ended.all():
                break
            log_probabilities, state = self._write(seen, self.table(tokens[:, :, -1:].reshape(-1, 1)), state)
            steps = torch.where(ended, only_end, log_probabilities.view(batch, beams, BYTES + 1))
            scores, places = (scores.unsqueeze(2) + steps).flatten(1).topk(beams)
            parents, next_ = places // (BYTES + 1), places % (BYTES + 1)
            tokens = torch.cat([tokens.gather(1, parents.unsqueeze(2).expand(-1, -1, tokens.shape[2])), next_.unsqueeze(2)], 2)
            state = state[:, (rows + parents).flatten()]
        return [ranked(_read_off(*each)) for each in zip(tokens[:, :, 1:].tolist(), scores.tolist(), strict=True)]


def _seen(read: Read) -> Seen:
    visible = read.there.clone()
    visible[:, 0] = True
    tokens = F.one_hot(read.source, BYTES + 1).to(read.memory.dtype) * read.there.unsqueeze(2)
    return Seen(read.memory, visible.unsqueeze(1), tokens, read.there.any(1).view(-1, 1, 1))


def _read_off(tokens: list[list[int]], scores: list[float]) -> Iterator[tuple[str, float]]:
    """Yield the texts of token sequences with the mean log probability of a token."""
    for each, score in zip(tokens, scores, strict=True):
        size = each.index(END) if END in each else len(each)
        yield bytes(each[:size]).decode(errors="replace"), score / min(size + 1, len(each))
