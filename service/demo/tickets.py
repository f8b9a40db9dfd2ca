"""Generated messages to a shop, each about several things at once, or about none that matters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Rng = np.random.Generator

SAID = {
    "delivery": (
        "the parcel came a week late",
        "the courier never rang",
        "it was left at the wrong door",
        "tracking shows nothing",
    ),
    "damage": ("the box was crushed", "the screen is cracked", "one leg arrived broken", "it leaks from the bottom"),
    "refund": ("please send my money back", "I was charged twice", "the voucher was not counted", "I want a refund"),
    "praise": ("your staff were lovely", "I would buy here again", "best service in years", "thank you for the quick help"),
    "account": ("I can't log in", "my password link expired", "please change my address", "two accounts have my name"),
}
FREQUENCY = {"delivery": 0.45, "damage": 0.3, "refund": 0.3, "praise": 0.2, "account": 0.08}
EMPTY = ("hello", "see above", "as I wrote before", "is anybody there")
OPENINGS = ("Good morning, ", "Hi, ", "", "Dear team, ", "Order 4711: ")


def tickets(rng: Rng) -> Iterator[tuple[str, list[str]]]:
    """Yield messages with their tags, without end."""
    while True:
        tags = [tag for tag in SAID if rng.random() < FREQUENCY[tag]]
        said = [str(rng.choice(SAID[tag])) for tag in rng.permutation(tags)] or [str(rng.choice(EMPTY))]
        yield f"{rng.choice(OPENINGS)}{', and '.join(said)}.", sorted(tags)
