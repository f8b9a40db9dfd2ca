"""Generated letters of customers with the line that a clerk would note of each: a small world to summarise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Rng = np.random.Generator

ITEMS = ("kettle", "lamp", "desk", "toaster", "radio", "jacket", "bicycle", "drill", "mattress", "printer", "tent", "clock")
PROBLEMS = {
    "broken": ("arrived in pieces", "does not work at all", "stopped working on the first day"),
    "late": ("still has not come", "is ten days overdue", "was promised for last week"),
    "wrong": ("is not what I ordered", "has the wrong colour", "came in another size"),
}
WISHES = {
    "refund": ("I want my money back", "Please return what I paid"),
    "exchange": ("Please send me another one", "I would like it to be exchanged"),
    "call": ("Could somebody call me", "Please ring me up"),
}
ASIDES = (
    "The weather has been dreadful",
    "I have been a customer for years",
    "My neighbour is very happy with hers",
    "It was a present",
)
STARTS, MIDDLES, ENDS = (
    ("Mar", "Hol", "Ben", "Kos", "Tal", "Vin", "Ros"),
    ("a", "e", "i", "o"),
    ("ler", "nik", "ton", "ska", "mann"),
)


def letters(rng: Rng) -> Iterator[tuple[str, str]]:
    """Yield letters with their summaries, without end."""
    while True:
        name = "".join(str(rng.choice(part)) for part in (STARTS, MIDDLES, ENDS))
        item, problem, wish = (str(rng.choice(list(known))) for known in (ITEMS, PROBLEMS, WISHES))
        said = f"The {item} from order {rng.integers(1000, 10000)} {rng.choice(PROBLEMS[problem])}"
        sentences = [str(rng.choice(ASIDES)), said] if rng.random() < 0.5 else [said, str(rng.choice(ASIDES))]
        text = ". ".join([*sentences, str(rng.choice(WISHES[wish]))])
        order = said.split("order ")[1][:4]
        yield f"{text}. {name}", f"{name}, order {order}: {item} {problem}, {wish}"
