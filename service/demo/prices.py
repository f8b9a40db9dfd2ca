"""`everlearn demo prices`: prices of flats with an interval that holds 90 % of them, while the market turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from service.client import Client
from service.demo.course import Item, follow, show
from service.demo.running import Running
from service.templates import render

ITEMS = 1500
DISTRICTS = {"harbour": 5.2, "old town": 6.0, "hills": 4.1, "station": 3.0, "park": 4.8}  # thousands per square metre
AFTER = {"harbour": 6.9, "old town": 5.4, "hills": 4.6, "station": 4.4, "park": 4.9}  # once the market has turned
FIELDS = {"district": "string", "metres": "number", "floor": "number", "balcony": "boolean", "built": "number"}


class Mean:
    """The mean price so far."""

    name = "mean price"

    def __init__(self) -> None:
        self._prices: list[float] = []

    def answer(self, instance: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the mean, None before the first price."""
        return {"value": float(np.mean(self._prices))} if self._prices else None

    def learn(self, instance: Mapping[str, Any], label: float) -> None:
        """Take the price in."""
        self._prices.append(label)


def flats(rng: np.random.Generator, turn_after: int) -> Iterator[Item]:
    """Yield flats with their prices in thousands, without end; after some, prices are other ones, and wilder."""
    count = 0
    while True:
        turned = count >= turn_after
        district = list(DISTRICTS)[rng.integers(len(DISTRICTS))]
        metres, floor, built = rng.uniform(25, 160), int(rng.integers(0, 8)), int(rng.integers(1900, 2026))
        balcony = bool(rng.random() < 0.5)
        price = metres * (AFTER if turned else DISTRICTS)[district]
        price *= 1 + 0.02 * floor + 0.05 * balcony + 0.1 * (built > 2000) - 0.15 * (1950 < built < 1980)
        price *= 1 + rng.normal(0, 0.1 if turned else 0.06)
        flat = {"district": district, "metres": round(metres, 1), "floor": floor, "balcony": balcony, "built": built}
        yield flat, round(price, 1)
        count += 1


def config() -> str:
    """Return the configuration."""
    return render("numbers", {"input": {"kind": "record", "fields": FIELDS, "unknown": "refuse"}})


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    stream = list(islice(flats(np.random.default_rng(0), ITEMS // 2), ITEMS))
    prices = np.array([price for _, price in stream])
    worst = float(np.abs(prices - prices.mean()).mean())
    inside: list[bool] = []

    def error(answer: Mapping[str, Any], price: float) -> float:
        if answer.get("low") is not None:
            inside.append(answer["low"] <= price <= answer["high"])
        return float(abs(answer["value"] - price))

    with running, Client(running.url) as client:
        course = follow(
            client, stream, score=error, metric="absolute error", baselines=[Mean()], worst=worst, console=running.console
        )
        half = len(inside) // 2
        coverage = {"all": round(float(np.mean(inside)), 4), "second_half": round(float(np.mean(inside[half:])), 4)}
        title = "prices of flats; the market turns half-way"
        show(course, title=title, over=100, report=report, plot=plot, console=running.console, more={"coverage": coverage})
        running.console.print(
            f"The interval promised 90 %; it held {coverage['all']:.1%} of the prices,"
            f" {coverage['second_half']:.1%} of those in the second half"
        )
        if not once:
            running.serve_on([f"curl -s {running.url}/model"])
