"""What stands out about new items before they are learned from: a loss unusual for the class, a contrary near-duplicate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from service.learning.duplicates import NearDuplicates
from service.learning.update import Item, LearningState

FADING = 0.98  # per item of a class: its last fifty count
FEWEST_ITEMS = 10.0  # of a class, faded, before any loss of it is unusual
ERRORS = 1.0  # standard deviations above the mean that are unusual


@dataclass(slots=True)
class History:
    """The losses on a class lately."""

    items: float = 0.0
    loss: float = 0.0
    squares: float = 0.0

    def take(self, loss: float) -> None:
        """Take in the loss on an item."""
        self.items = self.items * FADING + 1.0
        self.loss = self.loss * FADING + loss
        self.squares = self.squares * FADING + loss**2

    @property
    def most(self) -> float:
        """The most that is usual."""
        mean = self.loss / self.items
        return mean + ERRORS * math.sqrt(max(0.0, self.squares / self.items - mean**2))


@dataclass(frozen=True, slots=True)
class Finding:
    """An item's class, by index, the loss on it, and whether it is nearly one that another source labelled otherwise."""

    index: int
    loss: float
    contrary: bool
    most: float | None
    """The most that is usual of its class; None where too little is known of it."""

    @property
    def evidence(self) -> float | None:
        """What it says of its source, 0 to 1; None for nothing: the first items of a class are new to everybody."""
        if self.contrary:
            return 1.0
        return None if self.most is None or math.isnan(self.loss) else self.loss

    @property
    def unusual(self) -> bool:
        """Whether its label is to be doubted where its source is."""
        return self.contrary or (self.most is not None and self.loss > self.most)


class Findings:
    """The histories of classes, by index, and the near-duplicates."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._classes = {int(index): History(**history) for index, history in known.get("classes", {}).items()}
        self._duplicates = NearDuplicates(known.get("duplicates", {}))

    def look(self, state: LearningState, items: Mapping[int, Item], names: Mapping[int, str]) -> dict[int, Finding]:
        """Judge items by the state as it is, before it learns from them; `names` are their sources'."""
        model, labels = state.model, [item.label for item in items.values()]
        with torch.no_grad():
            features = state.seen(items)
            outputs = model.head(features) if model.head.ready else None
            losses = model.head.losses(model.head.scores(outputs, labels)).double().clamp(0, 1).tolist()
        contrary = self._duplicates.contrary(features, labels, list(names.values()))
        classes = model.head.strata(labels) or [0] * len(labels)
        found = zip(items, classes, losses, contrary, strict=True)
        return {seq: Finding(index, loss, against, self._most(index)) for seq, index, loss, against in found}

    def take(self, finding: Finding) -> None:
        """Take an item that is believed into the history of its class."""
        if not math.isnan(finding.loss):
            self._classes.setdefault(finding.index, History()).take(finding.loss)

    def forget(self) -> None:
        """Let go of what is known of single items."""
        self._duplicates = NearDuplicates({})

    def known(self) -> dict[str, Any]:
        """Return what is known, as it can be taken in again."""
        classes = {index: asdict(history) for index, history in self._classes.items()}
        return {"classes": classes, "duplicates": self._duplicates.known()}

    def _most(self, index: int) -> float | None:
        history = self._classes.get(index)
        return None if history is None or history.items < FEWEST_ITEMS else history.most
