from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from models.inputs import Picture
from models.patches import DRAWN_SIDE, GRID, overlay


def scene(seed: int) -> Image.Image:
    """Return a picture of 48 x 40 with a bright square somewhere."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 60, (40, 48, 3), dtype=np.uint8)
    row, column = generator.integers(0, 30, 2)
    pixels[row : row + 10, column : column + 10] = generator.integers(150, 255, 3)
    return Image.fromarray(pixels)


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_a_picture_with_all_patches_is_the_picture_and_with_none_is_blurred() -> None:
    kind = Picture(size=32)
    picture = encoded(scene(0))
    parts = kind.parts(picture, None)
    whole = kind.prepare(picture)
    assert parts.count == GRID * GRID
    assert torch.equal(parts.keep([True] * parts.count), whole)
    blurred = parts.keep([False] * parts.count)
    assert blurred.float().std() < whole.float().std()


def test_a_patch_is_where_the_grid_says() -> None:
    kind = Picture(size=32)
    picture = encoded(scene(1))
    parts = kind.parts(picture, None)
    present = [False] * parts.count
    present[GRID + 2] = True  # second row, third column
    changed = (parts.keep(present) != parts.keep([False] * parts.count)).any(0).nonzero()
    assert changed.min(0).values.tolist() == [5, 10]
    assert changed.max(0).values.tolist() == [9, 13]
    assert [row.index(9.0) for row in parts.shaped([9.0 if kept else 0.0 for kept in present]) if 9.0 in row] == [2]


def test_the_drawing_is_red_for_and_blue_against_in_the_shape_of_the_picture() -> None:
    grid = np.zeros((GRID, GRID))
    grid[0, 0], grid[-1, -1] = 1.0, -1.0
    drawn = overlay(Image.new("RGB", (400, 200), "white"), grid.tolist())
    assert drawn.size == (DRAWN_SIDE, DRAWN_SIDE // 2)
    red, _, blue = drawn.getpixel((2, 2))  # type: ignore[misc]
    assert red > blue
    red, _, blue = drawn.getpixel((drawn.width - 2, drawn.height - 2))  # type: ignore[misc]
    assert blue > red
    assert drawn.getpixel((drawn.width // 2, drawn.height // 2)) == (255, 255, 255)


def test_a_drawing_of_nothing_is_the_picture() -> None:
    drawn = overlay(Image.new("RGB", (2000, 10), "green"), np.zeros((GRID, GRID)).tolist())
    assert drawn.getpixel((0, 0)) == (0, 128, 0)
    assert drawn.size == (2 * DRAWN_SIDE, 4)
