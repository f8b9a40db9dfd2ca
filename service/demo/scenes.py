"""Generated scenes: one to four shapes on a grey ground, with their boxes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "cross")
NOISE = 12  # standard deviation of each channel of each pixel
MOST = 4
SMALLEST, LARGEST = 0.14, 0.36  # sides of shapes, as shares of the picture's
TOUCHING = 0.02  # of a picture's side that shapes are apart at least
TRIES = 30

Rng = np.random.Generator
Box = tuple[float, float, float, float]


def scenes(rng: Rng, size: int) -> Iterator[tuple[bytes, dict[str, list[Any]]]]:
    """Yield pictures of size x size pixels as PNG with their labels, without end."""
    while True:
        placed = list(_placed(int(rng.integers(1, MOST + 1)), size, rng))
        shapes = [str(rng.choice(SHAPES)) for _ in placed]
        yield (
            _drawn(shapes, placed, size, rng),
            {"boxes": [[round(side, 1) for side in box] for box in placed], "labels": shapes},
        )


def _placed(count: int, size: int, rng: Rng) -> Iterator[Box]:
    """Yield squares that do not touch; fewer where there is no room."""
    boxes: list[Box] = []
    for _ in range(TRIES):
        side = rng.uniform(SMALLEST, LARGEST) * size
        left, top = rng.uniform(0, size - side, 2)
        box = (float(left), float(top), float(left + side), float(top + side))
        if all(_apart(box, other, TOUCHING * size) for other in boxes):
            boxes.append(box)
            yield box
        if len(boxes) == count:
            return


def _apart(one: Box, other: Box, gap: float) -> bool:
    return one[2] + gap < other[0] or other[2] + gap < one[0] or one[3] + gap < other[1] or other[3] + gap < one[1]


def _drawn(shapes: list[str], boxes: list[Box], size: int, rng: Rng) -> bytes:
    ground = rng.integers(30, 130)
    picture = Image.new("RGB", (size, size), (int(ground),) * 3)
    pen = ImageDraw.Draw(picture)
    for shape, box in zip(shapes, boxes, strict=True):
        _draw(pen, shape, box, tuple(int(each) for each in rng.integers(60, 256, 3)))
    noisy = np.array(picture, dtype=np.float64) + rng.normal(0, NOISE, (size, size, 3))
    encoded = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def _draw(pen: ImageDraw.ImageDraw, shape: str, box: Box, colour: tuple[int, ...]) -> None:
    """Fill a box with a shape that touches all its sides."""
    left, top, right, bottom = box
    middle, third = (left + right) / 2, (right - left) / 3
    match shape:
        case "circle":
            pen.ellipse(box, fill=colour)
        case "square":
            pen.rectangle(box, fill=colour)
        case "triangle":
            pen.polygon([(middle, top), (right, bottom), (left, bottom)], fill=colour)
        case _:
            pen.rectangle((left, top + third, right, bottom - third), fill=colour)
            pen.rectangle((left + third, top, right - third, bottom), fill=colour)
