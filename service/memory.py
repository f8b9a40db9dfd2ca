"""Memory for what is large: in huge pages where the system has them, which takes a small part of the time to come by."""

from __future__ import annotations

import mmap
from typing import Any

Memory = bytearray | mmap.mmap

HUGE = 2 * 1024 * 1024  # bytes of a page, on most machines


def memory(size: int) -> Memory:
    """Return so many bytes, all zero."""
    if size < HUGE:
        return bytearray(size)
    taken = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advice: Any = getattr(mmap, "MADV_HUGEPAGE", None)  # which only Linux has
    if advice is not None:
        taken.madvise(advice)
    return taken
