"""The input kind of pictures in which things have places: how large a picture was sent is kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from PIL import ExifTags, Image
from pydantic import Field, PositiveInt

from models.errors import NotExplainable
from models.inputs import Batch, Picture
from models.parts import Parts


class Scene(Picture):
    """A JPEG, PNG or WebP; the whole of it is squeezed to size x size, and its own width and height are known."""

    kind = "scene"

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=32, le=2048, description="Side in pixels that pictures are squeezed to.")] = 320,
        max_pixels: Annotated[
            PositiveInt, Field(description="A picture with more pixels is refused before it is decoded.")
        ] = 25_000_000,
    ) -> None:
        super().__init__(size=size, max_pixels=max_pixels)

    def prepare(self, instance: bytes) -> Any:
        """Return pixels, uint8 [3, size, size], with width and height of the picture as sent, upright. Raises InstanceError."""
        picture = self.decode(instance)
        return self.scale(picture), picture.size

    def collate(self, prepared: Sequence[Any]) -> Batch:
        """Return {"pixels": uint8 [batch, 3, size, size], "sent": int64 [batch, 2] (width, height)}."""
        pixels, sizes = zip(*prepared, strict=True)
        return {"pixels": torch.stack(pixels), "sent": torch.tensor(sizes)}

    def parts(self, instance: bytes, means: Sequence[float] | None) -> Parts:
        """Raise NotExplainable: what is found is no number that patches could have a share in."""
        raise NotExplainable("a scene has no parts to attribute to")


def size_of(picture: bytes) -> tuple[int, int]:
    """Return width and height, upright by its EXIF orientation, of a picture that is known to be readable."""
    with Image.open(io.BytesIO(picture)) as image:
        width, height = image.size
        lies = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)  # it decodes a PNG without EXIF: not quick
    return (height, width) if lies else (width, height)
