"""The files that pictures come in, looked through before a decoder is: some are small, and yet take it hours.

Pillow goes through the parts of a PNG and the head of a JPEG in Python, part by part, and libjpeg decodes every scan of a
progressive JPEG over the whole picture. Neither has a limit.
"""

from __future__ import annotations

from models.errors import InstanceError

MOST_CHUNKS = 20_000
"""Parts of a PNG: 25 million pixels, hardly compressed and in parts of 8 KB, have about half as many."""

MOST_STEPS = 10_000
"""Parts of a JPEG's head, and bytes of junk between them."""

MOST_SCANS = 40
"""Passes over a progressive JPEG; encoders make about 10."""

LONGEST_SIDE = 65_535
"""Of a picture: JPEG's own limit. A row has its price, however short it is."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_SCAN = 0xDA
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})  # markers without a length


def check_container(payload: bytes) -> None:
    """Raise InstanceError for a file of more parts than a picture needs. Whether it is a picture is not asked here."""
    if payload.startswith(_PNG):
        _check_png(payload)
    elif payload.startswith(_JPEG):
        _check_jpeg(payload)


def _check_png(payload: bytes) -> None:
    place = len(_PNG)
    for _ in range(MOST_CHUNKS):
        place += 12 + int.from_bytes(payload[place : place + 4])  # length, type and checksum around the data
        if place >= len(payload):
            return
    raise InstanceError(f"the PNG has more than {MOST_CHUNKS} chunks")


def _check_jpeg(payload: bytes) -> None:
    if payload.count(bytes((0xFF, _SCAN))) > MOST_SCANS:
        raise InstanceError(f"the JPEG has more than {MOST_SCANS} scans")
    place = len(_JPEG)
    for _ in range(MOST_STEPS):
        marker = payload[place : place + 2]
        if len(marker) < 2 or marker == bytes((0xFF, _SCAN)):
            return
        place += _step(marker, payload[place + 2 : place + 4])
    raise InstanceError("the head of the JPEG has too many parts")


def _step(marker: bytes, length: bytes) -> int:
    """Return how far it is to the next marker, as Pillow goes."""
    if marker[0] != 0xFF or marker[1] == 0xFF:
        return 1
    return 2 if marker[1] in _ALONE else 2 + int.from_bytes(length)
