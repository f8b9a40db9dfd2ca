"""Words and pieces of words, of any language, and the buckets that they are hashed to."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

WORD = re.compile(r"\w+|[^\w\s]")  # of any script; a punctuation mark is a word of its own
PIECES = (3, 4, 5)  # lengths of the pieces of a word: endings, stems, compounds, scripts without spaces


def words_of(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, case folded."""
    return WORD.findall(text.casefold())


def pieces_of(words: Sequence[str]) -> Iterator[str]:
    """Yield the pieces of words; a beginning and an ending differ from what stands in the middle."""
    for word in words:
        marked = f"<{word}>"
        yield from (marked[start : start + size] for size in PIECES for start in range(len(marked) - size + 1))


def bucket_of(gram: str, buckets: int) -> int:
    """Return a stable bucket; Python's own hash differs from process to process."""
    return zlib.crc32(gram.encode()) % buckets
