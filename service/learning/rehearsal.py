"""Rehearsal (experience replay): which sequence numbers to remember, and which to learn from again.

A memory keeps sequence numbers, not copies: the log is the data. An update remembers its items after it has learned.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Memory(Protocol):
    """What a rehearsal policy must provide."""

    def pick(self, count: int, choices: np.random.Generator) -> tuple[int, ...]:
        """Return at most `count` sequence numbers to learn from again."""

    def remember(self, seqs: Sequence[int], classes: Sequence[int], choices: np.random.Generator) -> None:
        """Take in items that have been learned, with their class indices (all 0 where the task has none)."""

    def forget(self, seqs: Collection[int]) -> None:
        """Let go of these items, whether they are remembered or not."""

    def shorten(self) -> None:
        """Let go of what was learned long ago: the data has changed."""

    @property
    def seqs(self) -> Sequence[int]:
        """What is remembered."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""


class Recent:
    """The latest items, the younger the likelier: ages are drawn from an exponential distribution of mean `age` items."""

    reach = 5  # times the mean age: what is older is forgotten

    def __init__(self, age: int) -> None:
        self._age = age
        self._seqs = array("q")

    def pick(self, count: int, choices: np.random.Generator) -> tuple[int, ...]:
        """Return items by their drawn age; ages from before the first item give none."""
        ages = choices.exponential(self._age, size=count).astype(np.int64)
        return tuple(self._seqs[-1 - age] for age in ages.tolist() if age < len(self._seqs))

    def remember(self, seqs: Sequence[int], classes: Sequence[int], choices: np.random.Generator) -> None:
        """Take in the newest items; the oldest go."""
        self._seqs.extend(seqs)
        del self._seqs[: -self.reach * self._age]

    def forget(self, seqs: Collection[int]) -> None:
        """Let go of these items."""
        self._seqs = _without(self._seqs, seqs)

    def shorten(self) -> None:
        """Nothing to do: it is short."""

    @property
    def seqs(self) -> Sequence[int]:
        """What is remembered."""
        return list(self._seqs)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {"seqs": _numbers(self._seqs)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        self._seqs = array("q", tensors["seqs"].tolist())


class Reservoir:
    """A uniform sample of everything learned so far (algorithm R, Vitter 1985)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._seen = 0
        self._seqs = array("q")

    def pick(self, count: int, choices: np.random.Generator) -> tuple[int, ...]:
        """Return `count` different items, or all there are if these are fewer."""
        if not count or not self._seqs:
            return ()
        picked = choices.choice(len(self._seqs), size=min(count, len(self._seqs)), replace=False)
        return tuple(self._seqs[index] for index in picked.tolist())

    def remember(self, seqs: Sequence[int], classes: Sequence[int], choices: np.random.Generator) -> None:
        """Give each item its fair chance of a place."""
        for seq in seqs:
            self._seen += 1
            if len(self._seqs) < self.capacity:
                self._seqs.append(seq)
            elif (place := int(choices.integers(self._seen))) < self.capacity:
                self._seqs[place] = seq

    def forget(self, seqs: Collection[int]) -> None:
        """Let go of these items; the next ones take their places."""
        self._seqs = _without(self._seqs, seqs)

    def shorten(self) -> None:
        """Start again from nothing."""
        self._seen, self._seqs = 0, array("q")

    @property
    def seqs(self) -> Sequence[int]:
        """What is remembered."""
        return list(self._seqs)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {"seen": torch.tensor(self._seen), "seqs": _numbers(self._seqs)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        self._seen = int(tensors["seen"])
        self._seqs = array("q", tensors["seqs"].tolist())


class BalancedReservoir:
    """A sample in which every class has the same share, as far as it has items (CBRS, Chrysakis and Moens 2020)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._seen: dict[int, int] = {}  # class -> items so far
        self._held: dict[int, array[int]] = {}  # class -> its sequence numbers
        self._full: set[int] = set()  # classes that have been the largest of a full memory

    def pick(self, count: int, choices: np.random.Generator) -> tuple[int, ...]:
        """Return items, each of a class drawn first: a rare class is rehearsed as often as a frequent one."""
        if not self._held:
            return ()
        held = list(self._held.values())
        classes = choices.integers(len(held), size=count).tolist()
        places = choices.random(size=count).tolist()
        return tuple(held[label][int(place * len(held[label]))] for label, place in zip(classes, places, strict=True))

    def remember(self, seqs: Sequence[int], classes: Sequence[int], choices: np.random.Generator) -> None:
        """Give each item a place, at the expense of the largest class."""
        room = self.capacity - sum(map(len, self._held.values()))
        for seq, label in zip(seqs, classes, strict=True):
            self._seen[label] = self._seen.get(label, 0) + 1
            own = self._held.setdefault(label, array("q"))
            if room > 0:
                own.append(seq)
                room -= 1
                continue
            victims = max(self._held.values(), key=len)
            if len(own) == len(victims):
                self._full.add(label)
            if label in self._full:
                if own and choices.random() < len(own) / self._seen[label]:
                    own[int(choices.integers(len(own)))] = seq
            else:
                victims.pop(int(choices.integers(len(victims))))
                own.append(seq)
        self._held = {label: held for label, held in self._held.items() if held}

    def forget(self, seqs: Collection[int]) -> None:
        """Let go of these items."""
        if seqs:
            kept = {label: _without(held, seqs) for label, held in self._held.items()}
            self._held = {label: held for label, held in kept.items() if held}

    def shorten(self) -> None:
        """Start again from nothing."""
        self._seen, self._held, self._full = {}, {}, set()

    @property
    def seqs(self) -> Sequence[int]:
        """What is remembered."""
        return [seq for held in self._held.values() for seq in held]

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        counted = [(label, seen, label in self._full, len(self._held.get(label, []))) for label, seen in self._seen.items()]
        return {
            "classes": torch.tensor(counted, dtype=torch.int64).reshape(-1, 4),
            "order": torch.tensor(list(self._held), dtype=torch.int64),
            "seqs": _numbers(*self._held.values()),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        counted = tensors["classes"].tolist()
        self._seen = {label: seen for label, seen, _, _ in counted}
        self._full = {label for label, _, full, _ in counted if full}
        sizes = {label: held for label, _, _, held in counted}
        seqs = iter(tensors["seqs"].tolist())
        self._held = {label: array("q", islice(seqs, sizes[label])) for label in tensors["order"].tolist()}


class Mixed:
    """Half of what is picked is recent, half is of all classes alike."""

    def __init__(self, recent: Recent, lasting: BalancedReservoir) -> None:
        self._recent = recent
        self._lasting = lasting

    def pick(self, count: int, choices: np.random.Generator) -> tuple[int, ...]:
        """Return items of both memories."""
        half = count // 2
        return self._recent.pick(half, choices) + self._lasting.pick(count - half, choices)

    def remember(self, seqs: Sequence[int], classes: Sequence[int], choices: np.random.Generator) -> None:
        """Take the items into both memories."""
        self._recent.remember(seqs, classes, choices)
        self._lasting.remember(seqs, classes, choices)

    def forget(self, seqs: Collection[int]) -> None:
        """Let go of these items in both memories."""
        self._recent.forget(seqs)
        self._lasting.forget(seqs)

    def shorten(self) -> None:
        """Let go of what was learned long ago."""
        self._lasting.shorten()

    @property
    def seqs(self) -> Sequence[int]:
        """What is remembered."""
        return list({*self._recent.seqs, *self._lasting.seqs})

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {
            **{f"recent.{name}": tensor for name, tensor in self._recent.tensors().items()},
            **{f"lasting.{name}": tensor for name, tensor in self._lasting.tensors().items()},
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        for name, memory in (("recent.", self._recent), ("lasting.", self._lasting)):
            memory.load({key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)})


def _numbers(*seqs: array[int]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.array(each) for each in seqs]) if seqs else np.zeros(0, dtype=np.int64))


def _without(seqs: array[int], gone: Collection[int]) -> array[int]:
    return array("q", (seq for seq in seqs if seq not in gone)) if gone else seqs


MEMORIES: dict[str, Callable[[int, int], Memory]] = {
    "recent": lambda _, age: Recent(age),
    "reservoir": lambda capacity, _: Reservoir(capacity),
    "balanced": lambda capacity, _: BalancedReservoir(capacity),
    "mixed": lambda capacity, age: Mixed(Recent(age), BalancedReservoir(capacity)),
}
"""Policies by name: (capacity in items, mean age in items) -> memory."""
