"""The reader of .npy against NumPy's writer, and against what no honest writer writes."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from models.arrays import read_npy
from models.errors import InstanceError, Unreadable

DTYPES = [f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    """Return an array as NumPy writes it."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=True)
    return file.getvalue()


def headed(header: str | bytes, data: bytes = b"") -> bytes:
    """Return a file of version 1 with a header of one's own."""
    header = header if isinstance(header, bytes) else header.encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def header(descr: object = "<f4", order: object = False, shape: object = (1, 2)) -> str:
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0))
    ),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
    st.booleans(),
)
def test_whatever_numpy_writes_is_read(array: np.ndarray, version: tuple[int, int], turned: bool) -> None:
    array = np.asfortranarray(array) if turned else array
    npy = read_npy(saved(array, version))
    assert (npy.dtype, npy.shape) == (array.dtype, array.shape)
    assert npy.array().tobytes() == array.tobytes()  # NaN is not equal to itself, its bytes are


def test_the_order_of_the_keys_does_not_matter_and_the_header_may_have_space_around_it() -> None:
    body = headed('  {"shape": (2,), "descr": ">i2", "fortran_order": False}  \n', b"\0\1\0\2")
    assert read_npy(body).array().tolist() == [1, 2]


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, print], dtype=object),
        np.array(["1", "2"]),
        np.array([b"1"]),
        np.array([True]),
        np.array([1j]),
        np.zeros(2, dtype=[("a", "<f4")]),
        np.array(["2026-11-26"], dtype="datetime64[D]"),
        np.zeros(2, dtype="V4"),
        np.zeros(2, dtype=np.longdouble),
    ],
    ids=lambda array: str(array.dtype),
)
def test_what_is_no_number_of_up_to_eight_bytes_is_refused_and_never_unpickled(array: np.ndarray) -> None:
    with pytest.raises(InstanceError, match="integers and floats") as caught:
        read_npy(saved(array))
    assert not isinstance(caught.value, Unreadable)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "does not begin"),
        (b"PK\x03\x04", "does not begin"),
        (saved(np.zeros(2))[:7], "does not begin"),
        (b"\x93NUMPY\4\0" + saved(np.zeros(2))[8:], "does not begin"),
        (saved(np.zeros(2))[:9], "ends before"),
        (saved(np.zeros(2))[:60], "ends before"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff" + b" " * 100, "ends before"),
        (headed(" " * 60_000 + header(), b"\0" * 8), "the limit is"),
        (saved(np.zeros(2))[:-1], "15 bytes follow"),
        (saved(np.zeros(2)) + b"\0", "17 bytes follow"),
        (headed(header(shape=(2**40, 2**40)), b"\0" * 8), "8 bytes follow"),
        (headed(header(shape=(2**63, 2)), b""), "0 bytes follow"),
        (headed(header(shape=(-1, -2)), b"\0" * 8), "whole numbers"),
        (headed(header(shape=(True, 2)), b"\0" * 8), "whole numbers"),
        (headed(header(shape=(1.0, 2)), b"\0" * 8), "whole numbers"),
        (headed(header(shape=[1, 2]), b"\0" * 8), "does not name"),
        (headed(header(order=0), b"\0" * 8), "does not name"),
        (headed("{'descr': '<f4', 'shape': (1, 2)}", b"\0" * 8), "does not name"),
        (headed(header()[:-1] + ", 'more': 1}", b"\0" * 8), "does not name"),
        (headed("[1]"), "does not name"),
        (headed("print(1)"), "no Python literal"),
        (headed("{[]: 1}"), "no Python literal"),
        (headed("(" * 1000), "no Python literal"),
        (headed("-" * 1000 + "1"), "no Python literal"),
        (headed("'\0'"), "no Python literal"),
        (headed(b"'\xff'"), "no Python literal"),
    ],
)
def test_what_is_broken_or_promises_what_does_not_follow_is_unreadable(body: bytes, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        read_npy(body)


def test_a_promise_takes_no_memory() -> None:
    body = headed(header(shape=(2**30,)), b"\0" * 8)
    tracemalloc.start()
    with pytest.raises(Unreadable):
        read_npy(body)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda each: st.lists(each, max_size=3) | st.lists(each, max_size=3).map(tuple),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(headed)
    | st.builds(headed, st.builds(header, literals | st.sampled_from(DTYPES), literals, literals), st.binary(max_size=40))
)
def test_anything_else_raises_what_is_expected_of_it(body: bytes) -> None:
    try:
        npy = read_npy(body)
    except InstanceError:
        return
    assert npy.data == body[len(body) - len(npy.data) :]
