"""Arrays in NumPy's file format (.npy) that anybody may have sent: a header is believed as far as the bytes behind it go.

NumPy's own reader makes room for what a header promises before it reads on, and takes any type that Python can spell.
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import InstanceError, Unreadable

NPY = "application/x-npy"
MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 1024  # bytes; NumPy writes 118 for numbers in two dimensions
NUMBERS = re.compile("[<>|=](f[248]|[iu][1248])")
"""The types that are taken, as NumPy writes them: an order of bytes, a kind, a number of bytes."""


class Npy(NamedTuple):
    """A file, checked: `data` has the bytes of an array of this type and shape, neither more nor less."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    data: memoryview

    def array(self) -> NDArray[Any]:
        """Return the array, which is a view of the bytes."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape, order="F" if self.fortran_order else "C")


def read_npy(body: bytes) -> Npy:
    """Look at the bytes of a file; no room is made for anything. Raises Unreadable, and InstanceError for no numbers."""
    start, end = _header_in(body)
    match _literal(body[start:end]):
        case {"descr": descr, "fortran_order": bool(fortran_order), "shape": tuple(shape), **more} if not more:
            dtype = _dtype(descr)
        case _:
            raise Unreadable("its header does not name descr, fortran_order and shape, and these only")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise Unreadable("its header has a shape of something else than whole numbers from 0")
    data = memoryview(body)[end:]
    if math.prod(shape) * dtype.itemsize != len(data):
        raise Unreadable(f"its header says {list(shape)} numbers of {dtype.itemsize} bytes each, and {len(data)} bytes follow")
    return Npy(dtype, shape, fortran_order, data)


def _header_in(body: bytes) -> tuple[int, int]:
    """Return where the header starts and ends: before it are magic, a version of two bytes, and the header's length."""
    width = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}.get(body[6:8])
    if not body.startswith(MAGIC) or width is None:
        raise Unreadable("it does not begin as a .npy file of version 1, 2 or 3 does")
    start = 8 + width
    end = start + int.from_bytes(body[8:start], "little")
    if end > len(body):
        raise Unreadable("it ends before its header does")
    if end - start > LONGEST_HEADER:
        raise Unreadable(f"its header has {end - start} bytes, the limit is {LONGEST_HEADER}")
    return start, end


def _literal(header: bytes) -> Any:
    try:
        return ast.literal_eval(header.decode("ascii").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as exc:  # as Python's documentation lists them
        raise Unreadable("its header is no Python literal") from exc


def _dtype(descr: Any) -> np.dtype[Any]:
    if not isinstance(descr, str) or not NUMBERS.fullmatch(descr):
        told = descr if isinstance(descr, str) and len(descr) < 20 else type(descr).__name__
        raise InstanceError(
            f"its elements are {told!r}; integers and floats of up to 8 bytes are taken, and nothing is unpickled"
        )
    return np.dtype(descr)
