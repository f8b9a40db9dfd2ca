"""Generated pictures: a shape of a colour and a texture, on a grey ground, anywhere and of any size."""

from __future__ import annotations

import io
import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 210, 40),
    "purple": (150, 50, 180),
    "orange": (240, 140, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
TEXTURES = ("plain", "striped", "dotted")
DARKEST_GROUND, LIGHTEST_GROUND = 0, 90
NOISE = 15  # standard deviation of a colour's channels
OVERSAMPLED = 2  # drawn larger, then scaled down: smooth edges
PITCH = 10  # pixels between stripes and between dots, as drawn
SPIKES = 0.45  # of a star's radius, where its points begin

Rng = np.random.Generator


class Look(NamedTuple):
    """What a picture shows: one of 90 classes."""

    colour: str
    shape: str
    texture: str

    @property
    def name(self) -> str:
        """The class's name."""
        return "-".join(self)

    @property
    def description(self) -> str:
        """The class in words."""
        return f"a {self.texture} {self.shape} that is {self.colour}"


LOOKS = [Look(*each) for each in product(COLOURS, SHAPES, TEXTURES)]


def draw(look: Look, rng: Rng, size: int) -> bytes:
    """Return a picture of size x size pixels as PNG."""
    side = OVERSAMPLED * size
    colour = tuple(int(each) for each in np.clip(np.array(COLOURS[look.colour]) + rng.normal(0, NOISE, 3), 0, 255))
    ground = int(rng.integers(DARKEST_GROUND, LIGHTEST_GROUND))
    picture = Image.new("RGB", (side, side), (ground, ground, ground))
    picture.paste(_textured(look.texture, colour, side), mask=_shaped(look.shape, rng, side))
    encoded = io.BytesIO()
    picture.resize((size, size), Image.Resampling.BILINEAR).save(encoded, "PNG")
    return encoded.getvalue()


def _textured(texture: str, colour: tuple[int, ...], side: int) -> Image.Image:
    surface = Image.new("RGB", (side, side), colour)
    pen = ImageDraw.Draw(surface)
    if texture == "striped":
        for start in range(-side, side, PITCH):
            pen.line((start, 0, start + side, side), fill=tuple(each // 4 for each in colour), width=4)
    elif texture == "dotted":
        for x, y in product(range(0, side, PITCH), repeat=2):
            pen.ellipse((x, y, x + 4, y + 4), fill=(240, 240, 240))
    return surface


def _shaped(shape: str, rng: Rng, side: int) -> Image.Image:
    """Return the shape as a mask, turned a little."""
    mask = Image.new("L", (side, side), 0)
    pen: Any = ImageDraw.Draw(mask)
    radius = rng.uniform(0.28, 0.44) * side
    x, y = rng.uniform(radius, side - radius, 2)
    turn = rng.uniform(-0.3, 0.3)

    def corners(radii: list[float]) -> list[tuple[float, float]]:
        angles = (turn + 2 * math.pi * index / len(radii) for index in range(len(radii)))
        return [(x + each * math.sin(angle), y - each * math.cos(angle)) for each, angle in zip(radii, angles, strict=True)]

    match shape:
        case "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        case "square":
            pen.polygon(corners([radius] * 4), fill=255)
        case "triangle":
            pen.polygon(corners([radius] * 3), fill=255)
        case "star":
            pen.polygon(corners([radius, SPIKES * radius] * 5), fill=255)
        case _:
            arm = 0.35 * radius
            pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=255)
            pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=255)
    return mask
