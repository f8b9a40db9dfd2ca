"""Generated reviews in two languages, whose feeling hangs on what is said, and on whether it is denied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Rng = np.random.Generator


class Language(NamedTuple):
    """The words that reviews are made of."""

    things: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    was: str
    was_not: str
    openings: tuple[str, ...]


LANGUAGES = (
    Language(
        things=("The food", "The room", "The film", "The service", "This phone", "Our guide", "The plot", "The sound"),
        good=("good", "excellent", "charming", "worth the money", "convincing", "a joy", "fast", "friendly"),
        bad=("bad", "dreadful", "boring", "overpriced", "broken", "a mess", "slow", "rude"),
        was="was {}",
        was_not="was not {} at all",
        openings=("", "Honestly, ", "We came twice. ", "After a week: ", "My family agrees: "),
    ),
    Language(
        things=("Das Essen", "Das Zimmer", "Der Film", "Der Service", "Dieses Telefon", "Die Handlung", "Der Ton"),
        good=("gut", "großartig", "charmant", "sein Geld wert", "überzeugend", "eine Freude", "schnell", "freundlich"),
        bad=("schlecht", "furchtbar", "langweilig", "überteuert", "kaputt", "eine Zumutung", "langsam", "unhöflich"),
        was="war {}",
        was_not="war überhaupt nicht {}",
        openings=("", "Ehrlich gesagt: ", "Wir waren zweimal da. ", "Nach einer Woche: "),
    ),
)
DENIED = 0.4  # share of the reviews that say what something was not


def reviews(rng: Rng) -> Iterator[tuple[str, str]]:
    """Yield reviews with their feeling, "positive" or "negative", without end."""
    while True:
        language = LANGUAGES[rng.integers(len(LANGUAGES))]
        praised, denied = rng.random() < 0.5, rng.random() < DENIED
        word = rng.choice(language.good if praised else language.bad)
        said = (language.was_not if denied else language.was).format(word)
        text = f"{rng.choice(language.openings)}{rng.choice(language.things)} {said}."
        yield text, "positive" if praised != denied else "negative"
