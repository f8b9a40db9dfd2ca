"""A picture cut into square patches, and what they are worth drawn over it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from models.parts import Parts

GRID = 7  # patches along each side
BLUR = 8  # the side of a picture in standard deviations of the blur that stands in for a patch
DRAWN_SIDE = 448  # pixels of the longer side that a drawing has at least; a larger picture keeps its size up to twice this
FOR, AGAINST = (214, 39, 40), (31, 119, 180)  # red, blue
STRONGEST = 0.65  # opacity of the patch that weighs most


def patch_parts(pixels: Tensor, picture: Callable[[], Image.Image]) -> Parts:
    """Cut pixels, uint8 [3, size, size], into GRID x GRID patches; a strong blur (Fong and Vedaldi 2017) stands in for one.

    `picture` gives the whole picture for the drawing.
    """
    size = pixels.shape[-1]
    line = torch.arange(size) * GRID // size  # [size]: the row, or column, of the grid that a pixel belongs to
    sharp = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    soft = np.array(sharp.filter(ImageFilter.GaussianBlur(size / BLUR)))
    blurred = torch.from_numpy(soft).permute(2, 0, 1)  # [3, size, size]

    def keep(present: Sequence[bool]) -> Tensor:
        grid = torch.tensor(present).view(GRID, GRID)
        return torch.where(grid[line][:, line], pixels, blurred)

    def shaped(values: Sequence[float]) -> list[list[float]]:
        return [list(values[start : start + GRID]) for start in range(0, GRID * GRID, GRID)]

    return Parts(
        count=GRID * GRID,
        baseline="the picture blurred in the place of each patch",
        keep=keep,
        shaped=shaped,
        drawn=lambda values: _png(overlay(picture(), shaped(values))),
    )


def overlay(picture: Image.Image, grid: Sequence[Sequence[float]]) -> Image.Image:
    """Draw a grid of numbers over a picture: red speaks for, blue against, the more the stronger."""
    longer = max(picture.size)
    scale = min(max(longer, DRAWN_SIDE), 2 * DRAWN_SIDE) / longer
    width, height = (max(1, round(side * scale)) for side in picture.size)
    values: Any = np.array(grid, dtype=np.float64)
    strength = np.abs(values) / (np.abs(values).max() or 1.0)
    colours = np.where(values[..., None] > 0, FOR, AGAINST)  # [rows, cols, 3]
    layer = np.concatenate([colours, strength[..., None] * 255 * STRONGEST], axis=2).round().astype(np.uint8)
    patches = Image.fromarray(layer).resize((width, height), Image.Resampling.NEAREST)
    base = picture.convert("RGBA").resize((width, height), Image.Resampling.BILINEAR)
    return Image.alpha_composite(base, patches).convert("RGB")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
