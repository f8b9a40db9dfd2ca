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
        held = {seq: self._taken(seq) for seq in seqs if self._has(seq, seq in encoded)}
        missing = [seq for seq in seqs if seq not in held]
        if missing:
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
            _, size = self._items.pop(seq, (None, 0))
            self._bytes -= size

    def _has(self, seq: int, encoded: bool) -> bool:
        return seq in self._items and (encoded or self._items[seq][0].prepared is not None)

    def _taken(self, seq: int) -> Item:
        self._items.move_to_end(seq)
        return self._items[seq][0]

    def _keep(self, seq: int, item: Item, logged: int) -> None:
        self.forget([seq])
        size = _bytes_of(item, logged)
        self._items[seq] = item, size
        self._bytes += size
        while self._bytes > self._most:
            _, (_, gone) = self._items.popitem(last=False)
            self._bytes -= gone


def _bytes_of(item: Item, logged: int) -> int:
    """Return about how much memory an item takes; `logged`: bytes of its instance in the log."""
    return LEAST_BYTES + _held_by([item.prepared, item.label, item.answer], PARSED * logged)


def _held_by(value: Any, unknown: int) -> int:
    """Return about how much memory a value takes; `unknown`: an object that does not say."""
    match value:
        case Tensor() | np.ndarray():
            return value.nbytes
        case tuple() | list():
            return getsizeof(value) + sum(_held_by(each, unknown) for each in value)
        case dict():
            return getsizeof(value) + _held_by([*value, *value.values()], unknown)
        case None | str() | bytes() | int() | float():
            return getsizeof(value)
        case _:
            return unknown
