"""`everlearn demo products`: a shop with new products every day, recommended by what they are before anybody bought them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from service.client import Client
from service.demo.course import Course, show, teach
from service.demo.running import Running
from service.demo.shop import KINDS, Choice, Product, Shop
from service.templates import render

DAYS = 40
TOP = 10


def config() -> str:
    """Return the configuration."""
    return render("products")


def run(running: Running, *, once: bool, report: Path, plot: Path) -> None:
    """Run the demo and write its report and its picture."""
    shop = Shop(np.random.default_rng(0))
    course = Course("NDCG@10", {"everlearn": [], "most popular": []})
    bought: Counter[str] = Counter()
    with running, Client(running.url) as client:
        for events in track(list(shop.days(DAYS)), "days", console=running.console):
            for event in events:
                if isinstance(event, Product):
                    client.describe(event.name, event.description)
                else:
                    popular = [name for name, _ in bought.most_common(TOP)]
                    course.scores["most popular"].append(gain({"items": popular}, event.item))
                    _chosen(client, event, course)
                    bought[event.item] += 1
        model = client.model()
        course.versions = model.model_version
        found = [_fans_of_a_new(kind, client, shop) for kind in KINDS]
        more = {"window": model.metrics["window"], "new_in_top_10": round(float(np.mean(found)), 4)}
        show(course, title="a shop", over=500, report=report, plot=plot, console=running.console, more=more)
        running.console.print(
            f"a product that nobody bought, described just now, is in the top {TOP} of {100 * np.mean(found):.0f} %"
            " of those who like its kind",
            markup=False,
        )
        if not once:
            body = json.dumps({"instances": [{"user": "u7"}]})
            running.serve_on([f"curl -s {running.url}/predict --json '{body}'"])


def gain(answer: Mapping[str, Any], item: str) -> float:
    """Return what a ranking is worth where an item was chosen: 1 in the first place, less in each later one (NDCG)."""
    items = answer["items"][:TOP]
    return 1 / math.log2(items.index(item) + 2) if item in items else 0.0


def _chosen(client: Client, choice: Choice, course: Course) -> None:
    (prediction,) = client.predict([{"user": choice.user}], top_k=TOP)
    course.scores["everlearn"].append(gain(prediction.answer, choice.item))
    course.served_ms.append(teach(client, {"user": choice.user}, choice.item, prediction))


def _fans_of_a_new(kind: str, client: Client, shop: Shop) -> float:
    """Describe one more product of a kind; return the share of those who like the kind that it is recommended to."""
    name = f"new {kind}"
    client.describe(name, f"a new {kind}")
    fans = [{"user": f"u{user}"} for user in range(len(shop.tastes)) if kind in shop.liked(user)]
    return float(np.mean([name in prediction.answer["items"] for prediction in client.predict(fans, top_k=TOP)]))
