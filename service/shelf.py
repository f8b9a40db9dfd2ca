"""A shelf of items that are ready to learn from: what is rehearsed, or judged by, was new a while ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from sys import getsizeof
from typing import Any

import numpy as np
from torch import Tensor

from models.base import OnlineModel
from service.checkpointing import items_of
from service.learning.update import Item
from service.store import Entry

MOST_BYTES = 256 * 1024 * 1024
LEAST_BYTES = 1024  # that an item takes, whatever it holds
PARSED = 8  # times the bytes that an instance has in the log: about what an object made of it takes

NOTHING = None, 0
"""What is held of an item that is not there, and its bytes."""

Fetch = Callable[[Sequence[int]], Mapping[int, Entry]]


class Shelf:
    """The items that were taken last, as far as `most` bytes hold them; the log has the others. What it gives is the same."""

    def __init__(self, entries: Fetch, *, most: int = MOST_BYTES) -> None:
        """`entries` looks entries up in the log."""
        self._entries = entries
        self._most = most
        self._items: OrderedDict[int, tuple[Item, int]] = OrderedDict()  # with its bytes; the one taken last comes last
        self._bytes = 0

    def new(self, model: OnlineModel, entries: Iterable[Entry], *, encoded: Container[int] = ()) -> dict[int, Item]:
        """Make entries ready, and keep them; the instances of `encoded` ones are left out. Raises InstanceError."""
        found = {entry.seq: entry for entry in entries}
        items = items_of(model.input, found, encoded=encoded)
        for seq, item in items.items():
            self._keep(seq, item, len(found[seq].instance))
        return items

    def fetch(self, model: OnlineModel, seqs: Collection[int], *, encoded: Container[int] = ()) -> dict[int, Item]:
        """Return the items with these sequence numbers; those that are `encoded` may come without their instances."""
        held = {seq: item for seq in seqs if (item := self._taken(seq, encoded)) is not None}
        missing = [seq for seq in seqs if seq not in held]
        if not missing:
            return held
        held |= self.new(model, self._entries(missing).values(), encoded=encoded)
        return {seq: held[seq] for seq in seqs if seq in held}

    def strip(self, seqs: Iterable[int]) -> None:
        """Let go of instances: what a frozen encoder says of them is known now."""
        for seq in seqs:
            if seq in self._items and (item := self._items[seq][0]).prepared is not None:
                self._keep(seq, item._replace(prepared=None), 0)

    def forget(self, seqs: Iterable[int]) -> None:
        """Let go of these items."""
        for seq in seqs:
            self._bytes -= self._items.pop(seq, NOTHING)[1]

    def _taken(self, seq: int, encoded: Container[int]) -> Item | None:
        """Return an item, if it is here as it is needed."""
        item, _ = self._items.get(seq, NOTHING)
        if item is None or (item.prepared is None and seq not in encoded):
            return None
        self._items.move_to_end(seq)
        return item

    def _keep(self, seq: int, item: Item, logged: int) -> None:
        size = _bytes_of(item, logged)
        self._bytes += size - self._items.pop(seq, NOTHING)[1]
        self._items[seq] = item, size
        while self._bytes > self._most:
            _, (_, gone) = self._items.popitem(last=False)
            self._bytes -= gone


def _bytes_of(item: Item, logged: int) -> int:
    """Return about how much memory an item takes; `logged`: bytes of its instance in the log."""
    unknown = PARSED * logged
    return LEAST_BYTES + _held_by(item.prepared, unknown) + _held_by(item.label, unknown) + _held_by(item.answer, unknown)


def _held_by(value: Any, unknown: int) -> int:
    """Return about how much memory a value takes; `unknown`: an object that does not say."""
    match value:
        case np.ndarray() | Tensor():
            return value.nbytes
        case None | str() | bytes() | int() | float():
            return getsizeof(value)
        case tuple() | list():
            return getsizeof(value) + sum(_held_by(each, unknown) for each in value)
        case dict():
            return getsizeof(value) + _held_by([*value, *value.values()], unknown)
        case _:
            return unknown
