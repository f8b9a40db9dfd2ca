"""The holdout: feedback that is never trained on, kept fresh, and every source's alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from itertools import chain, islice, repeat, zip_longest

import torch
from torch import Tensor

from models.base import Features, OnlineModel
from service.learning.update import Item

MOST_SOURCES = 16  # whose items there is room for, where each has as many as it may


class Holdout:
    """The newest held-out items of each source, as sequence numbers; the log is the data.

    Sources may be as many as there are users: where these hold too many, items go of the one that was silent longest.
    """

    def __init__(self, capacity: int, known: Iterable[tuple[int, str | None]] = ()) -> None:
        self._capacity = capacity  # items of one source
        self._seqs: dict[str | None, deque[int]] = {}  # the source that brought something last comes last
        self.features: dict[int, Features] = {}
        """What a frozen encoder says of them, as far as that was asked."""
        for seq, source in known:
            self.add(seq, source)

    def add(self, seq: int, source: str | None) -> None:
        """Take in an item, once; the oldest of its source goes where there are too many."""
        own = self._seqs[source] = self._seqs.pop(source, deque(maxlen=self._capacity))
        if seq not in own:
            own.append(seq)
        if sum(map(len, self._seqs.values())) > MOST_SOURCES * self._capacity:
            silent = next(iter(self._seqs))
            self._seqs[silent].popleft()
            if not self._seqs[silent]:
                del self._seqs[silent]

    def forget(self, seqs: Collection[int]) -> None:
        """Let go of these items."""
        for source, own in list(self._seqs.items()):
            kept = deque((seq for seq in own if seq not in seqs), maxlen=self._capacity)
            self._seqs[source] = kept
            if not kept:
                del self._seqs[source]

    def sample(self, count: int) -> dict[int, str | None]:
        """Return the freshest items with their sources, of each source about as many."""
        freshest = reversed(self._seqs.items())
        by_age = zip_longest(*(zip(reversed(own), repeat(source), strict=False) for source, own in freshest))
        return dict(islice((each for each in chain.from_iterable(by_age) if each is not None), count))

    def losses(self, model: OnlineModel, items: Mapping[int, Item]) -> Tensor:
        """Return what the model loses on items, [items], about 0..1 each, in their order."""
        labels = [item.label for item in items.values()]
        with torch.no_grad():
            outputs = model.head(self._encoded(model, items)) if model.head.ready else None
            return model.head.losses(model.head.scores(outputs, labels)).double().cpu().clamp(0, 1)

    def known(self) -> list[tuple[int, str | None]]:
        """Return what is held, as it can be taken in again."""
        return [(seq, source) for source, own in self._seqs.items() for seq in own]

    def _encoded(self, model: OnlineModel, items: Mapping[int, Item]) -> Features:
        if not model.encoder.frozen:
            return model.encoder(model.collate([item.prepared for item in items.values()]))
        new = [seq for seq in items if seq not in self.features]
        if new:
            encoded = model.encoder(model.collate([items[seq].prepared for seq in new]))
            held = {seq for own in self._seqs.values() for seq in own}
            self.features = {seq: each for seq, each in self.features.items() if seq in held}
            self.features.update(zip(new, encoded, strict=True))
        return torch.stack([self.features[seq] for seq in items])
