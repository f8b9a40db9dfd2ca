"""The scenarios as the faults attack them: the configuration of a template, and labelled instances for it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from service.demo.dates import dates
from service.demo.faces import face, photo
from service.demo.pictures import LOOKS, draw
from service.demo.prices import FIELDS, flats
from service.demo.reviews import reviews
from service.demo.sessions import visits
from service.demo.tickets import tickets
from service.demo.zeroshot import encoded
from service.templates import render

ITEMS = 300
Scenario = tuple[str, list[tuple[Any, Any]]]


def _numbers() -> Scenario:
    config = render("numbers", {"input": {"kind": "record", "fields": FIELDS, "unknown": "refuse"}})
    return config, list(islice(flats(np.random.default_rng(0), ITEMS // 2), ITEMS))


def _text() -> Scenario:
    return render("text"), list(islice(reviews(np.random.default_rng(0)), ITEMS))


def _tags() -> Scenario:
    return render("tags"), list(islice(tickets(np.random.default_rng(0)), ITEMS))


def _translation() -> Scenario:
    return render("translation"), list(islice(dates(np.random.default_rng(0)), ITEMS))


def _behaviour() -> Scenario:
    return render("behaviour"), list(islice(visits(np.random.default_rng(0), ITEMS // 2), ITEMS))


def _zeroshot() -> Scenario:
    rng = np.random.default_rng(0)
    looks = [LOOKS[index] for index in rng.integers(len(LOOKS), size=ITEMS)]
    return render("zeroshot"), [(encoded(draw(look, rng, 32)), look.name) for look in looks]


def _recognition() -> Scenario:
    rng = np.random.default_rng(0)
    backbone = {"name": "torchvision", "backbone": "mobilenet_v3_small", "weights": "none", "train": "head"}
    config = render("recognition", {"input": {"kind": "image", "size": 64}, "encoder": backbone})
    people = [face(f"person {number}", rng) for number in range(ITEMS // 4)]
    return config, [
        (encoded(photo(people[number % len(people)], rng, 64)), people[number % len(people)].name) for number in range(ITEMS)
    ]


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "numbers": _numbers,
    "text": _text,
    "tags": _tags,
    "translation": _translation,
    "behaviour": _behaviour,
    "zeroshot": _zeroshot,
    "recognition": _recognition,
}
