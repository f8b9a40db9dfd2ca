"""The scenarios as the faults attack them: the configuration of a template, and labelled instances for it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from service.demo.complaints import letters
from service.demo.dates import dates
from service.demo.faces import face, photo
from service.demo.pictures import LOOKS, draw
from service.demo.prices import FIELDS, flats
from service.demo.reviews import reviews
from service.demo.scenes import scenes
from service.demo.sessions import visits
from service.demo.shop import Choice, Shop
from service.demo.tickets import tickets
from service.demo.zeroshot import encoded
from service.templates import render
from tests.tiny_t5 import save_tiny_t5

ITEMS = 300
Scenario = tuple[str, list[tuple[Any, Any]]]


def _numbers(folder: Path) -> Scenario:
    config = render("numbers", {"input": {"kind": "record", "fields": FIELDS, "unknown": "refuse"}})
    return config, list(islice(flats(np.random.default_rng(0), ITEMS // 2), ITEMS))


def _text(folder: Path) -> Scenario:
    return render("text"), list(islice(reviews(np.random.default_rng(0)), ITEMS))


def _tags(folder: Path) -> Scenario:
    return render("tags"), list(islice(tickets(np.random.default_rng(0)), ITEMS))


def _translation(folder: Path) -> Scenario:
    return render("translation"), list(islice(dates(np.random.default_rng(0)), ITEMS))


def _summary(folder: Path) -> Scenario:
    return render("summary"), list(islice(letters(np.random.default_rng(0)), ITEMS))


def _seq2seq(folder: Path) -> Scenario:
    head = {"name": "seq2seq", "model": str(save_tiny_t5(folder / "t5")), "train": "lora", "max_tokens": 16}
    return render("seq2seq", {"head": head}), list(islice(dates(np.random.default_rng(0)), ITEMS))


def _behaviour(folder: Path) -> Scenario:
    return render("behaviour"), list(islice(visits(np.random.default_rng(0), ITEMS // 2), ITEMS))


def _recommend(folder: Path) -> Scenario:
    shown = Shop(np.random.default_rng(0)).shown(ITEMS)
    return render("recommend"), [
        ({"user": each.user, "item": each.item, "context": each.context}, each.clicked) for each in shown
    ]


def _products(folder: Path) -> Scenario:
    events = chain.from_iterable(Shop(np.random.default_rng(0)).days(3))
    return render("products"), [({"user": each.user}, each.item) for each in events if isinstance(each, Choice)]


def _zeroshot(folder: Path) -> Scenario:
    rng = np.random.default_rng(0)
    looks = [LOOKS[index] for index in rng.integers(len(LOOKS), size=ITEMS)]
    return render("zeroshot"), [(encoded(draw(look, rng, 32)), look.name) for look in looks]


def _recognition(folder: Path) -> Scenario:
    rng = np.random.default_rng(0)
    backbone = {"name": "torchvision", "backbone": "mobilenet_v3_small", "weights": "none", "train": "head"}
    config = render("recognition", {"input": {"kind": "image", "size": 64}, "encoder": backbone})
    people = [face(f"person {number}", rng) for number in range(ITEMS // 4)]
    return config, [
        (encoded(photo(people[number % len(people)], rng, 64)), people[number % len(people)].name) for number in range(ITEMS)
    ]


def _detection(folder: Path) -> Scenario:
    config = render("detection", {"input": {"kind": "scene", "size": 64}})
    return config, [(encoded(picture), label) for picture, label in islice(scenes(np.random.default_rng(0), 64), ITEMS)]


SCENARIOS: dict[str, Callable[[Path], Scenario]] = {
    "numbers": _numbers,
    "text": _text,
    "tags": _tags,
    "translation": _translation,
    "summary": _summary,
    "seq2seq": _seq2seq,
    "behaviour": _behaviour,
    "recommend": _recommend,
    "products": _products,
    "zeroshot": _zeroshot,
    "recognition": _recognition,
    "detection": _detection,
}
