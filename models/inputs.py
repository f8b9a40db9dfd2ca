"""Input kinds: what an instance is, as JSON, as stored bytes and as tensors.

An instance passes through four forms: its JSON (or the request's body), the *instance* that journal and log keep
(`dump`/`load`), the *prepared* instance (`prepare`, the costly part, off the event loop), and a collated batch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, Strict, StrictBool, StringConstraints, TypeAdapter
from pydantic_core import from_json, to_json
from torch import Tensor
from typing_extensions import TypedDict

from models.arrays import NPY, read_npy
from models.containers import LONGEST_SIDE, check_container
from models.errors import InstanceError, NotExplainable, SpecificationError, Unreadable
from models.parts import Parts, field_parts, number_parts, text_parts
from models.patches import patch_parts

Batch = Mapping[str, Tensor]

BatchReaders = Mapping[str, Callable[[bytes, int], list[Any]]]
"""Functions by media type: each takes a body and how many instances it may have, and returns them, or raises InstanceError."""
NO_BATCHES: BatchReaders = MappingProxyType({})

FLOAT_LIMIT = 1e30  # numbers that are learned are cut to this size, so that float32 and squares of differences stay finite

# What Pillow raises for pictures that are cut off, lie about their size, or carry broken metadata.
BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(struct.error, Image.DecompressionBombError),
)

ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"  # a PNG

DRAFT = 2  # times the side that a picture comes to: what is decoded smaller looks the same once it is scaled to that

LARGEST = torch.finfo(torch.float32).max
Number = Annotated[float, Strict(), Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
String = Annotated[str, Strict(), StringConstraints(max_length=10_000)]


class InputKind(Protocol):
    """What a kind of instance must provide; every method is pure and thread-safe."""

    kind: str
    instance_type: Any
    """Type of an instance in JSON, as pydantic takes it."""
    example: Any
    media_types: tuple[str, ...]
    """Media types of a request body that is itself one instance."""
    batches: BatchReaders
    """What reads a request body that is itself a batch of instances."""
    slow: bool
    """Whether `prepare` costs enough to be kept off the event loop."""

    def parse(self, value: Any) -> Any:
        """Turn validated JSON into an instance. Raises InstanceError."""

    def parse_body(self, body: bytes, media_type: str) -> Any:
        """Turn a request body of one of `media_types` into an instance. Raises InstanceError."""

    def dump(self, instance: Any) -> bytes:
        """Return the bytes that journal and log keep."""

    def load(self, payload: bytes) -> Any:
        """Return the instance that `dump` wrote."""

    def prepare(self, instance: Any) -> Any:
        """Do the per-instance work before collation. Raises InstanceError, and only where it is `slow`: else `parse` has."""

    def collate(self, prepared: Sequence[Any]) -> Batch:
        """Stack prepared instances into named tensors, batch first."""

    def parts(self, instance: Any, means: Sequence[float] | None) -> Parts:
        """Cut an instance into parts to explain it by. `means`, of its numbers, where the encoder knows them.

        Raises InstanceError, and NotExplainable where the kind has no parts.
        """


def prepared_example(kind: InputKind) -> Any:
    """Return the example of a kind, prepared."""
    return kind.prepare(kind.parse(TypeAdapter(kind.instance_type).validate_python(kind.example)))


class JsonKind:
    """What the kinds share whose instances are stored as the JSON they came as."""

    media_types: tuple[str, ...] = ()
    batches = NO_BATCHES
    slow = False

    def parse(self, value: Any) -> Any:
        return value

    def parse_body(self, body: bytes, media_type: str) -> Any:
        raise InstanceError(f"a {media_type} body is not an instance of this model")

    def dump(self, instance: Any) -> bytes:
        return to_json(instance)

    def load(self, payload: bytes) -> Any:
        return from_json(payload)

    def prepare(self, instance: Any) -> Any:
        return instance

    def parts(self, instance: Any, means: Sequence[float] | None) -> Parts:
        raise NotExplainable(f"an instance of the kind {type(self).__name__} has no parts to attribute to")


class Vector(JsonKind):
    """A list of `length` finite numbers."""

    kind = "vector"

    def __init__(self, *, length: Annotated[PositiveInt, Field(description="How many numbers an instance has.")]) -> None:
        self.length = length
        self.instance_type = Annotated[list[Number], Field(min_length=length, max_length=length)]
        self.example = [0.0] * min(length, 4) if length <= 4 else [float(i % 3) for i in range(length)]
        self.batches = {NPY: self.parse_npy}

    def parse_npy(self, body: bytes, most: int) -> list[list[float]]:
        """Return the instances of a .npy file, one of the shape [length] or up to `most` of [batch, length].

        Raises InstanceError, with a pointer into the batch.
        """
        sent = read_npy(body)
        shape = (1, *sent.shape) if len(sent.shape) == 1 else sent.shape
        if len(shape) != 2:
            raise InstanceError(f"the shape is [{self.length}] or [instances, {self.length}], not {list(sent.shape)}")
        count, width = shape
        if not 1 <= count <= most:
            raise InstanceError(f"there are {count} instances; one request has 1 to {most}")
        if width != self.length:
            raise InstanceError(f"an instance has {self.length} numbers, not {width}", "/0")
        array = sent.array().reshape(shape)
        if (place := _first(~np.isfinite(array))) is not None:
            raise Unreadable(f"{array[place]} is no number that JSON has", f"/{place[0]}/{place[1]}")
        numbers = array.astype(np.float64)
        if (place := _first(np.abs(numbers) > LARGEST)) is not None:
            raise InstanceError(f"{numbers[place]} is beyond float32", f"/{place[0]}/{place[1]}")
        rows: list[list[float]] = numbers.tolist()
        return rows

    def prepare(self, instance: list[float]) -> NDArray[np.float64]:
        """Return the numbers as an array, [length]."""
        return np.array(instance, dtype=np.float64)

    def collate(self, prepared: Sequence[NDArray[np.float64] | list[float]]) -> Batch:
        """Return {"numbers": float64 [batch, length]}."""
        return {"numbers": torch.from_numpy(np.array(prepared, dtype=np.float64))}  # torch would read number by number

    def parts(self, instance: list[float], means: Sequence[float] | None) -> Parts:
        """Each number is a part."""
        return number_parts(instance, means)


def _first(places: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Return the first row and column that is marked."""
    if not places.any():
        return None
    row, column = divmod(int(places.argmax()), places.shape[1])
    return row, column


FieldType = Literal["number", "string", "boolean"]


class Record(JsonKind):
    """An object of named numbers, strings and booleans; a name that is absent or null is a missing value."""

    kind = "record"
    json_types: ClassVar[Mapping[FieldType, Any]] = {"number": Number, "string": String, "boolean": StrictBool}

    def __init__(
        self,
        *,
        fields: Annotated[dict[str, FieldType], Field(min_length=1, description='Name -> "number", "string" or "boolean".')],
        unknown: Annotated[
            Literal["refuse", "ignore"], Field(description="What to do with a name that is not declared.")
        ] = "refuse",
    ) -> None:
        self.fields = fields
        self.numbers = [name for name, kind in fields.items() if kind != "string"]
        self.strings = [name for name, kind in fields.items() if kind == "string"]
        record = TypedDict("Record", {name: self.json_types[kind] | None for name, kind in fields.items()}, total=False)  # type: ignore[misc]  # the fields are known at run time only
        record.__pydantic_config__ = ConfigDict(extra="forbid" if unknown == "refuse" else "ignore")  # type: ignore[attr-defined]
        self.instance_type: Any = record
        examples = {"number": 1.5, "string": "red", "boolean": True}
        self.example = {name: examples[kind] for name, kind in fields.items()}

    def collate(self, prepared: Sequence[Mapping[str, Any]]) -> Batch:
        """Return {"numbers": float64 [batch, n], NaN = missing, "strings": int64 [batch, s], -1 = missing}."""
        rows = [[_number(record.get(name)) for name in self.numbers] for record in prepared]
        codes = [[code_of(name, record.get(name)) for name in self.strings] for record in prepared]
        numbers = torch.from_numpy(np.array(rows, dtype=np.float64)).reshape(len(prepared), len(self.numbers))
        return {
            "numbers": numbers,
            "strings": torch.tensor(codes, dtype=torch.int64).reshape(len(prepared), len(self.strings)),
        }

    def parts(self, instance: Mapping[str, Any], means: Sequence[float] | None) -> Parts:
        """Each field that is there is a part."""
        return field_parts(instance)


def _number(value: float | bool | None) -> float:
    return math.nan if value is None else float(value)


@lru_cache(maxsize=8192)
def code_of(name: str, value: str | None) -> int:
    """Return 62 stable bits for a field's string; Python's own hash differs from process to process."""
    if value is None:
        return -1
    digest = hashlib.blake2b(json.dumps([name, value]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


class Text:
    """A text in any language; an encoder cuts it into words or tokens as it likes."""

    kind = "text"
    media_types: tuple[str, ...] = ("text/plain",)
    batches = NO_BATCHES
    slow = False
    example = "An explosive plot, and not a minute too long."

    def __init__(
        self, *, max_characters: Annotated[PositiveInt, Field(description="A longer text is refused.")] = 10_000
    ) -> None:
        self.max_characters = max_characters
        self.instance_type: Any = Annotated[str, Strict(), StringConstraints(max_length=max_characters)]

    def parse(self, value: str) -> str:
        """Return the text. Raises InstanceError for half a character (a lone surrogate), which UTF-8 can't hold."""
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise InstanceError(f"the text has half a character at {exc.start}") from exc
        return value

    def parse_body(self, body: bytes, media_type: str) -> str:
        """Return the body as text. Raises InstanceError where it is not UTF-8, or too long."""
        try:
            text = body.decode()
        except UnicodeDecodeError as exc:
            raise InstanceError(f"the text is not UTF-8 at byte {exc.start}") from exc
        if len(text) > self.max_characters:
            raise InstanceError(f"the text has {len(text)} characters, the limit is {self.max_characters}")
        return text

    def dump(self, instance: str) -> bytes:
        """Return the text as UTF-8."""
        return instance.encode()

    def load(self, payload: bytes) -> str:
        """Return the text."""
        return payload.decode()

    def prepare(self, instance: str) -> bytes:
        """Return the text as UTF-8."""
        return instance.encode()

    def collate(self, prepared: Sequence[bytes]) -> Batch:
        """Return {"text": uint8 [batch, longest], "bytes": int64 [batch], how many of them each text has}."""
        longest = max(map(len, prepared), default=0)
        padded = b"".join(text.ljust(longest, b"\0") for text in prepared)
        return {
            "text": torch.frombuffer(bytearray(padded or b"\0"), dtype=torch.uint8)[: len(padded)].view(len(prepared), longest),
            "bytes": torch.tensor([len(text) for text in prepared], dtype=torch.int64),
        }

    def parts(self, instance: str, means: Sequence[float] | None) -> Parts:
        """Each word and each sign is a part."""
        return text_parts(instance, self.prepare)


def texts_of(batch: Batch) -> list[str]:
    """Return the texts of a collated batch."""
    rows, lengths = batch["text"].cpu().numpy(), batch["bytes"].tolist()
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


class EncodedImage(BaseModel):
    """A picture inside JSON."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Image")
    b64: str = Field(description="The bytes of a JPEG, PNG or WebP in base64.", min_length=1)


class Picture:
    """A JPEG, PNG or WebP; kept as its bytes, decoded to RGB pixels of size x size."""

    kind = "image"
    formats: ClassVar[Mapping[str, str]] = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
    media_types: tuple[str, ...] = tuple(formats)
    batches = NO_BATCHES
    slow = True
    instance_type: Any = EncodedImage

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=8, le=2048, description="Side in pixels that pictures come to.")] = 224,
        resize: Annotated[
            int | None,
            Field(
                ge=8,
                le=4096,
                description="Scale the shorter side to this many pixels and cut the middle out; without it the whole picture"
                " is squeezed to the size.",
            ),
        ] = None,
        interpolation: Annotated[Literal["bilinear", "bicubic"], Field(description="How pictures are scaled.")] = "bilinear",
        max_pixels: Annotated[
            PositiveInt, Field(description="A picture with more pixels is refused before it is decoded.")
        ] = 25_000_000,
    ) -> None:
        if resize is not None and resize < size:
            raise SpecificationError("model.input.resize", f"{resize} is smaller than the size of {size} that is cut out")
        self.size = size
        self.resize = resize
        self.resampling = Image.Resampling[interpolation.upper()]
        self.max_pixels = max_pixels
        self.example = {"b64": ONE_PIXEL}

    def parse(self, value: EncodedImage) -> bytes:
        """Return the picture's bytes. Raises InstanceError where they are not base64."""
        try:
            return base64.b64decode(value.b64, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise InstanceError("b64 is not valid base64") from exc

    def parse_body(self, body: bytes, media_type: str) -> bytes:
        """Return the body. Raises InstanceError where it is another format than it says."""
        expected = self.formats[media_type]
        with self._open(body) as image:
            # Phones put several JPEGs into one file (MPO): to a reader that does not know that, it is the first of them.
            if (found := "JPEG" if image.format == "MPO" else image.format) != expected:
                raise InstanceError(f"the body says {media_type} and holds a {found}")
        return body

    def dump(self, instance: bytes) -> bytes:
        """Return the picture's bytes."""
        return instance

    def load(self, payload: bytes) -> bytes:
        """Return the picture's bytes."""
        return payload

    def prepare(self, instance: bytes) -> Tensor:
        """Decode to uint8 [3, size, size], upright by its EXIF orientation. Raises InstanceError."""
        return self.scale(self._middle(self.decode(instance, least=DRAFT * (self.resize or self.size))))

    def collate(self, prepared: Sequence[Tensor]) -> Batch:
        """Return {"pixels": uint8 [batch, 3, size, size]}."""
        return {"pixels": torch.stack(list(prepared))}

    def parts(self, instance: bytes, means: Sequence[float] | None) -> Parts:
        """Each square patch of a grid is a part."""
        return patch_parts(self.prepare(instance), lambda: self._middle(self.decode(instance)))

    def scale(self, picture: Image.Image) -> Tensor:
        """Squeeze a picture to pixels, uint8 [3, size, size]."""
        return torch.from_numpy(np.array(picture.resize((self.size, self.size), self.resampling))).permute(2, 0, 1)

    def decode(self, instance: bytes, least: int | None = None) -> Image.Image:
        """Return the whole picture in RGB, upright by its EXIF orientation. Raises InstanceError.

        A JPEG whose sides need no more than `least` pixels is decoded at a half, a quarter or an eighth, which is faster.
        """
        with self._open(instance) as image:
            try:
                if least is not None:
                    image.draft(None, (least, least))
                return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
            except BROKEN as exc:
                raise InstanceError("the picture is broken and can't be decoded") from exc

    def _middle(self, picture: Image.Image) -> Image.Image:
        """Return what the model is to see of a picture, before it is scaled: a picture of 1 x 20,000 must not be blown up."""
        if self.resize is None:
            return picture
        side = max(1, round(min(picture.size) * self.size / self.resize))
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        return picture.crop((left, top, left + side, top + side))

    def _open(self, payload: bytes) -> Image.Image:
        """Read the header only, so that the size is known before any pixel is decoded."""
        check_container(payload)
        try:
            image = Image.open(io.BytesIO(payload), formats=tuple(self.formats.values()))
        except Image.DecompressionBombError as exc:  # Pillow has a limit of its own
            limit = min(self.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or self.max_pixels))
            raise InstanceError(f"the picture has more pixels than the limit of {limit}") from exc
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as exc:
            raise InstanceError("not a readable JPEG, PNG or WebP") from exc
        width, height = image.size
        if max(width, height) > LONGEST_SIDE:
            raise InstanceError(f"the picture is {width} x {height}, the limit of a side is {LONGEST_SIDE}")
        if width * height > self.max_pixels:
            raise InstanceError(f"the picture has {width * height} pixels, the limit is {self.max_pixels}")
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a grey picture of 16 bits (a PNG's most) down: Pillow's own conversion cuts every value over 255 off."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I") else image
