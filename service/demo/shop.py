"""A generated shop: customers with tastes, products of kinds, new ones every day, and a day when half of all tastes change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Rng = np.random.Generator

KINDS = ("novel", "cookbook", "atlas", "puzzle", "record", "poster", "kite", "teapot", "lantern", "chess", "camera", "guitar")
LOOKS = ("small", "large", "red", "blue", "old", "new", "light", "heavy")
USERS, FIRST, EACH_DAY = 150, 180, 4  # customers, products on the first day, new products of a day
CHOICES = 100  # of a day
LIKED = 2  # kinds of a customer
TASTE = 4.0  # how much likelier, in log odds, an item of a kind that is liked is chosen
TIMES = ("morning", "evening")
WHEN = {"novel": ("evening",), "record": ("evening",), "cookbook": ("morning",)}  # when it is liked by everybody
SELDOM, CLICKED = -2.5, 0.9  # log odds of a click on what is not liked, and how much of the taste counts
QUALITY = 0.7  # standard deviation of a product's own appeal, in log odds


class Product(NamedTuple):
    """What is sold."""

    name: str
    kind: str
    description: str
    quality: float


class Choice(NamedTuple):
    """Who chose what."""

    user: str
    item: str


class Shown(NamedTuple):
    """A product that was shown to somebody, and whether it was clicked."""

    user: str
    item: str
    context: dict[str, str]
    clicked: bool


Event = Product | Choice


class Shop:
    """The customers' tastes and the products, on the day that has been reached."""

    def __init__(self, rng: Rng) -> None:
        self.products: list[Product] = []
        self._rng = rng
        self.tastes = np.stack([self._taste() for _ in range(USERS)])  # [users, kinds]

    def days(self, count: int) -> Iterator[list[Event]]:
        """Yield what happens on each day: products come, then customers choose."""
        for day in range(count):
            if day == count // 2:
                changed = self._rng.permutation(USERS)[: USERS // 2]
                self.tastes[changed] = [self._taste() for _ in changed]
            yield [*self._arriving(FIRST if day == 0 else EACH_DAY), *(self._choice() for _ in range(CHOICES))]

    def shown(self, count: int) -> Iterator[Shown]:
        """Yield products at random that are shown to customers; in the evening some kinds are clicked more often."""
        self._arriving(FIRST)
        for _ in range(count):
            user, product = int(self._rng.integers(USERS)), self.products[int(self._rng.integers(len(self.products)))]
            when = str(self._rng.choice(TIMES))
            likes = self.tastes[user][KINDS.index(product.kind)] + (TASTE if when in WHEN.get(product.kind, ()) else 0)
            odds = SELDOM + CLICKED * likes + product.quality
            yield Shown(f"u{user}", product.name, {"when": when}, bool(self._rng.random() < 1 / (1 + np.exp(-odds))))

    def liked(self, user: int) -> set[str]:
        """Return the kinds that a customer likes."""
        return {KINDS[kind] for kind in self.tastes[user].nonzero()[0]}

    def _taste(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        taste = np.zeros(len(KINDS))
        taste[self._rng.choice(len(KINDS), LIKED, replace=False)] = TASTE
        return taste

    def _arriving(self, count: int) -> list[Product]:
        new = []
        for number in range(len(self.products), len(self.products) + count):
            kind, look = str(self._rng.choice(KINDS)), str(self._rng.choice(LOOKS))
            new.append(Product(f"p{number}", kind, f"a {look} {kind}", float(self._rng.normal(0, QUALITY))))
        self.products += new
        return new

    def _choice(self) -> Choice:
        user = int(self._rng.integers(USERS))
        odds = self.tastes[user][[KINDS.index(each.kind) for each in self.products]] + [each.quality for each in self.products]
        share = np.exp(odds - odds.max())
        return Choice(f"u{user}", self.products[int(self._rng.choice(len(share), p=share / share.sum()))].name)
