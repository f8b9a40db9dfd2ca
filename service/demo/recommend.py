"""`everlearn demo recommend`: products shown to customers, and who will click on what, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from service.client import Client
from service.demo.course import follow, show
from service.demo.running import Running
from service.demo.shop import Shop
from service.templates import render

ITEMS = 3000
PRIOR = 10.0  # times that each product is taken to have been shown, at the rate of all


class ClickRate:
    """How often the product was clicked so far, whoever it was shown to."""

    name = "click rate of the product"

    def __init__(self) -> None:
        self._shown: defaultdict[str, int] = defaultdict(int)
        self._clicks: defaultdict[str, int] = defaultdict(int)

    def answer(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rate, drawn to that of all."""
        mean = (sum(self._clicks.values()) + 1) / (sum(self._shown.values()) + 2)
        item = instance["item"]
        return {"scores": [(self._clicks[item] + PRIOR * mean) / (self._shown[item] + PRIOR)]}

    def learn(self, instance: Mapping[str, Any], label: bool) -> None:
        """Count it."""
        self._shown[instance["item"]] += 1
        self._clicks[instance["item"]] += label


def config() -> str:
    """Return the configuration."""
    return render("recommend")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    shop = Shop(np.random.default_rng(0))
    shown = shop.shown(ITEMS)
    stream = [({"user": each.user, "item": each.item, "context": each.context}, each.clicked) for each in shown]
    with running, Client(running.url) as client:
        for product in shop.products:
            client.describe(product.name, product.description)
        metric = "log probability of what happened"
        course = follow(
            client,
            stream,
            score=log_probability,
            metric=metric,
            baselines=[ClickRate()],
            worst=np.log(0.5),
            console=running.console,
        )
        auc = client.model().metrics["window"]["auc"]
        more = {"auc": auc}
        show(course, title="who clicks on what", over=500, report=report, plot=plot, console=running.console, more=more)
        running.console.print(f"area under the ROC curve over the last 1,000: {auc:.3f}", markup=False)
        if not once:
            body = '{"instances": [{"user": "u7", "context": {"when": "evening"}}], "top_k": 5}'
            running.serve_on([f"curl -s {running.url}/predict --json '{body}'"])


def log_probability(answer: Mapping[str, Any], clicked: bool) -> float:
    """Return the log of the probability that was given to what happened."""
    probability = answer["scores"][0]
    return float(np.log(max(probability if clicked else 1 - probability, 1e-6)))
