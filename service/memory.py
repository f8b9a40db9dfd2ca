"""Memory for what is large: in huge pages where the system has them, which takes a small part of the time to come by."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any

Memory = bytearray | mmap.mmap

HUGE = 2 * 1024 * 1024  # bytes of a page, on most machines


def memory(size: int) -> Memory:
    """Return so many bytes, all zero. Raises MemoryError."""
    if size < HUGE:
        return bytearray(size)
    try:
        taken = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as exc:  # who reads a file into it would take that for an error of the file
        raise MemoryError(f"{size} bytes: {exc.strerror}") from exc
    advice: Any = getattr(mmap, "MADV_HUGEPAGE", None)  # which only Linux has
    if advice is not None:
        with suppress(OSError):  # a kernel built without huge pages refuses to be advised
            taken.madvise(advice)
    return taken
