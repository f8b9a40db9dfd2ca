"""Generated faces: an identity is a set of traits, and each photo of it has another pose, light and ground."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

Rng = np.random.Generator
Colour = tuple[int, int, int]

SKINS: tuple[Colour, ...] = ((255, 224, 196), (234, 192, 150), (198, 144, 98), (141, 92, 58), (92, 58, 38))
HAIRS: tuple[Colour, ...] = ((30, 25, 20), (95, 60, 30), (200, 160, 80), (160, 60, 30), (150, 150, 155), (120, 40, 120))
CLOTHES: tuple[Colour, ...] = ((200, 40, 50), (40, 90, 200), (40, 150, 80), (230, 190, 40), (60, 60, 70), (150, 70, 170))
SIDE = 160  # pixels of the drawing


@dataclass(frozen=True, slots=True)
class Face:
    """The traits of an identity."""

    name: str
    skin: Colour
    hair: Colour
    clothes: Colour
    width: float
    hair_height: float
    long_hair: bool
    eyes: float
    eye_size: float
    mouth: float
    smile: float
    glasses: bool
    beard: bool
    hat: Colour | None


def face(name: str, rng: Rng) -> Face:
    """Return somebody new."""
    return Face(
        name=name,
        skin=SKINS[rng.integers(len(SKINS))],
        hair=HAIRS[rng.integers(len(HAIRS))],
        clothes=CLOTHES[rng.integers(len(CLOTHES))],
        width=rng.uniform(0.75, 1.0),
        hair_height=rng.uniform(0.1, 0.45),
        long_hair=bool(rng.random() < 0.5),
        eyes=rng.uniform(0.25, 0.5),
        eye_size=rng.uniform(3.0, 7.0),
        mouth=rng.uniform(8.0, 20.0),
        smile=rng.uniform(-6.0, 10.0),
        glasses=bool(rng.random() < 0.35),
        beard=bool(rng.random() < 0.3),
        hat=CLOTHES[rng.integers(len(CLOTHES))] if rng.random() < 0.3 else None,
    )


def photo(who: Face, rng: Rng, size: int) -> bytes:
    """Return a picture of somebody, size x size pixels, as PNG."""
    ground: Any = tuple(int(each) for each in rng.integers(60, 220, 3))
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    _draw(who, ImageDraw.Draw(picture))
    scale = rng.uniform(0.8, 1.25)
    shift = rng.uniform(-14, 14, 2)
    picture = picture.rotate(rng.uniform(-14, 14), Image.Resampling.BILINEAR, fillcolor=ground)
    cut = SIDE / scale
    left, top = (SIDE - cut) / 2 + shift[0], (SIDE - cut) / 2 + shift[1]
    picture = picture.transform(
        (size, size), Image.Transform.EXTENT, (left, top, left + cut, top + cut), Image.Resampling.BILINEAR, fillcolor=ground
    )
    picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.65, 1.3))
    noisy = np.asarray(picture, dtype=float) + rng.normal(0, 6, (size, size, 3))
    encoded = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def _draw(who: Face, pen: Any) -> None:
    middle, half, top, bottom = SIDE / 2, 38 * who.width, 40.0, 120.0
    pen.rectangle((middle - 48, 128, middle + 48, SIDE), fill=who.clothes)
    pen.rectangle((middle - 12, 110, middle + 12, 132), fill=who.skin)
    if who.long_hair:
        pen.ellipse((middle - half - 10, top - 10, middle + half + 10, bottom + 14), fill=who.hair)
    pen.ellipse((middle - half, top, middle + half, bottom), fill=who.skin)
    if who.beard:
        pen.chord((middle - half, top, middle + half, bottom), 30, 150, fill=who.hair)
    pen.chord((middle - half - 2, top - 6, middle + half + 2, bottom), 180 + 30, 360 - 30, fill=who.hair)
    pen.ellipse((middle - half, top - 80 * who.hair_height / 2, middle + half, top + 18), fill=who.hair)
    if who.hat is not None:
        pen.rectangle((middle - half - 10, top - 2, middle + half + 10, top + 8), fill=who.hat)
        pen.rectangle((middle - half + 6, top - 32, middle + half - 6, top), fill=who.hat)
    for side in (-1, 1):
        x, y, size = middle + side * half * who.eyes, 76.0, who.eye_size
        pen.ellipse((x - size, y - size, x + size, y + size), fill=(250, 250, 250))
        pen.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=(30, 30, 40))
        if who.glasses:
            pen.ellipse((x - 12, y - 10, x + 12, y + 10), outline=(20, 20, 20), width=3)
    y = 100.0
    pen.line((middle - who.mouth, y - who.smile / 2, middle, y + who.smile / 2), fill=(150, 40, 50), width=4)
    pen.line((middle, y + who.smile / 2, middle + who.mouth, y - who.smile / 2), fill=(150, 40, 50), width=4)
