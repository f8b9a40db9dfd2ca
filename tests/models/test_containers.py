"""Files that are small, and would take a decoder minutes: each is refused in a moment."""

from __future__ import annotations

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from models.errors import InstanceError
from models.inputs import Picture

PICTURE = Picture(size=32)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOMENT = 3.0  # seconds of computing; what is refused here took 5 to 25 before it was


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, extra: bytes = b"", depth: int = 8, pixels: bytes | None = None) -> bytes:
    """Return a grey PNG made by hand; without pixels it has but a few rows."""
    row = 1 + (width * depth + 7) // 8
    rows = zlib.compress(b"\0" * (row * min(height, 16)) if pixels is None else pixels)
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def encoded(form: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, form, **options)
    return file.getvalue()


JPEG = encoded("JPEG")


def scans(count: int) -> bytes:
    """Return a progressive JPEG of 25 million pixels whose last, empty pass comes over and over again."""
    file = io.BytesIO()
    Image.new("L", (5000, 5000)).save(file, "JPEG", progressive=True, quality=1)
    whole = file.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + b"\xff\xd9"


def after_start(junk: bytes) -> bytes:
    return JPEG[:2] + junk + JPEG[2:]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (png(100_000, 100_000), "more pixels than the limit"),
        (png(30_000, 30_000, depth=1, pixels=b"\0" * 30_000 * 3751), "more pixels than the limit"),
        (png(1, 25_000_000, pixels=b"\0" * 50_000_000), "the limit of a side"),
        (png(8, 8, extra=chunk(b"prIv", b"") * 1_300_000), "more than 20000 chunks"),
        (png(8, 8, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 100_000_000))), "not a readable"),
        (png(8, 8, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 100_000_000))), "not a readable"),
        (after_start(b"\xff\xe5\x00\x02" * 3_500_000), "too many parts"),
        (after_start(b"\xff" * 15_000_000), "too many parts"),
        (after_start(b"\x00" * 15_000_000), "too many parts"),
        (after_start(b"\xff\xd0" * 7_000_000), "too many parts"),
        (scans(500), "more than 40 scans"),
    ],
    ids=["wide", "bits", "tall", "chunks", "text", "profile", "segments", "fill", "junk", "restarts", "scans"],
)
def test_a_bomb_is_refused_in_a_moment(payload: bytes, says: str) -> None:
    began = time.process_time()
    with pytest.raises(InstanceError, match=says):
        PICTURE.prepare(payload)
    assert time.process_time() - began < MOMENT


def test_more_pixels_in_the_data_than_in_the_header_are_not_unpacked() -> None:
    bomb = png(8, 8, pixels=b"\0" * 200_000_000)
    began = time.process_time()
    assert PICTURE.prepare(bomb).shape == (3, 32, 32)
    assert time.process_time() - began < MOMENT


@pytest.mark.parametrize(
    "payload",
    [
        encoded("PNG"),
        encoded("JPEG", progressive=True),
        encoded("JPEG", quality=100, comment=b"x" * 60_000),
        encoded("WEBP"),
        encoded("WEBP", lossless=True),
        encoded("PNG", (3000, 1000), compress_level=0),
        encoded("JPEG", (4000, 3000), progressive=True, restart_marker_rows=1),
    ],
)
def test_what_encoders_make_is_taken(payload: bytes) -> None:
    assert PICTURE.prepare(payload).shape == (3, 32, 32)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_is_cut_off_anywhere_is_refused_and_never_crashes(form: str) -> None:
    whole = encoded(form)
    for end in [*range(0, len(whole) - 20, 7), *range(40)]:
        with pytest.raises(InstanceError):
            PICTURE.prepare(whole[:end])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_byte_that_is_changed_is_refused_or_decoded_and_never_crashes(form: str) -> None:
    whole = encoded(form)
    taken = 0
    for place in range(0, len(whole), 3):
        for value in (0x00, 0xFF, whole[place] ^ 0x55):
            try:
                taken += PICTURE.prepare(whole[:place] + bytes([value]) + whole[place + 1 :]).shape == (3, 32, 32)
            except InstanceError:
                continue
    assert taken > 0


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF", "EPS", "TGA"])
def test_other_formats_are_refused_whatever_they_say_they_are(form: str) -> None:
    with pytest.raises(InstanceError, match="not a readable"):
        PICTURE.prepare(encoded(form))


@pytest.mark.parametrize("tail", [b"PK\x03\x04" + b"\0" * 100, b"<script>alert(1)</script>", b"\xff\xda" * 10, JPEG])
def test_what_hangs_on_behind_a_picture_is_no_part_of_it(tail: bytes) -> None:
    for whole in (encoded("PNG"), JPEG, encoded("WEBP")):
        assert PICTURE.prepare(whole + tail).equal(PICTURE.prepare(whole))
