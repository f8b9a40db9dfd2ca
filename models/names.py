"""Names of classes, events and sources: what can't be seen must not tell two apart."""

from __future__ import annotations

import re
import unicodedata

JOINERS = "\u200c\u200d"
"""Without a width, and yet letters of Persian, of many Indian scripts and of emoji: taken between such characters only."""

_MISPLACED = re.compile(rf"(?:^|[\x00-\x7f\s{JOINERS}])[{JOINERS}\ufe00-\ufe0f]|[{JOINERS}](?:$|[\x00-\x7f\s])")
_IGNORED = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U000e0000-\U000e0fff]")
"""Letters, marks and a symbol, says Unicode, that show nothing."""

_UNSEEN = {
    "Cc": "a control character",
    "Cf": "an invisible character",
    "Cs": "half a character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def unseemly(name: str) -> str | None:
    """Return what in a name can't be seen, or turns what can be seen around; None where there is nothing.

    That is: control characters, the ends of lines, bidirectional overrides, zero-width and other format characters, and
    halves of characters.
    """
    if name.isascii() and name.isprintable():
        return None
    for place, character in enumerate(name):
        category = unicodedata.category(character)
        if category in _UNSEEN and character not in JOINERS:
            return f"{_UNSEEN[category]} (U+{ord(character):04X}) at {place}"
    if found := _IGNORED.search(name) or _MISPLACED.search(name):
        return f"an invisible character at {found.start()}"
    return None


def seemly(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), so that it is one name however it was typed.

    Raises ValueError for a name with something in it that can't be seen.
    """
    if (found := unseemly(name)) is not None:
        raise ValueError(f"a name can't have {found}")
    return name if name.isascii() else unicodedata.normalize("NFC", name)
