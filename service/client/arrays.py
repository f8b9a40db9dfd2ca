"""NumPy's arrays as they are, in the file format .npy: written without NumPy, which need not be here."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

NPY = {"Content-Type": "application/x-npy"}
NUMBERS = re.compile("[<>|](f[248]|[iu][1248])")
"""The types that the service takes."""


class Rows(NamedTuple):
    """The rows of an array, an instance each."""

    descr: str
    """Their type, as NumPy writes it."""
    width: int
    items: Iterator[bytes]

    def body(self, items: Sequence[bytes]) -> bytes:
        """Return some of the rows as a file, whose numbers begin at a multiple of 64 bytes."""
        header = repr({"descr": self.descr, "fortran_order": False, "shape": (len(items), self.width)}).encode()
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"".join(items)


def rows_of(instances: Any) -> Rows | None:
    """Return the rows of an array of numbers in two dimensions; None of all else, subclasses (masks) among it."""
    numpy = sys.modules.get("numpy")  # whoever has an array has imported it
    if numpy is None or type(instances) is not numpy.ndarray or instances.ndim != 2:
        return None
    if not NUMBERS.fullmatch(instances.dtype.str):
        return None
    return Rows(instances.dtype.str, instances.shape[1], (row.tobytes() for row in instances))
