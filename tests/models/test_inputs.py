from __future__ import annotations

import base64
import io
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from sklearn.datasets import load_sample_image

from models.errors import InstanceError
from models.inputs import LARGEST, EncodedImage, Picture, Record, Vector
from tests.models.test_arrays import DTYPES, saved

FIELDS: dict[str, Any] = {"age": "number", "city": "string", "member": "boolean"}


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_a_vector_collates_to_float64_rows() -> None:
    batch = Vector(length=3).collate([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert batch["numbers"].dtype == torch.float64
    assert batch["numbers"].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("value", [[1.0], [1.0, 2.0, 3.0], ["1", "2"], [True, False], [None, 1.0], "12", {}, [math.nan, 1.0]])
def test_a_vector_of_another_length_or_type_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Vector(length=2).instance_type).validate_python(value)


def test_huge_numbers_are_finite_in_float32_or_refused() -> None:
    kind = Vector(length=2)
    check = TypeAdapter(kind.instance_type).validate_python
    numbers = kind.collate([check([LARGEST, -LARGEST])])["numbers"]
    assert numbers.float().isfinite().all()
    with pytest.raises(ValidationError):
        check([1.001 * LARGEST, 0.0])


def batches(dtype: str) -> st.SearchStrategy[np.ndarray]:
    """Return batches of up to four instances of three numbers: any integers, or any floats that float32 holds."""
    elements = None
    if np.dtype(dtype).kind == "f":
        most = min(LARGEST, float(np.finfo(dtype).max))
        elements = st.floats(-most, most, width=8 * np.dtype(dtype).itemsize)
    return arrays.arrays(dtype, st.tuples(st.integers(1, 4), st.just(3)), elements=elements)


@given(st.sampled_from(DTYPES).flatmap(batches))
def test_an_array_is_kept_as_the_bytes_that_its_json_is_kept_as(array: np.ndarray) -> None:
    kind = Vector(length=3)
    listed = TypeAdapter(list[kind.instance_type]).validate_json(json.dumps(array.tolist()))  # type: ignore[name-defined]
    assert [*map(kind.dump, kind.parse_npy(saved(array), 4))] == [*map(kind.dump, listed)]


records = st.fixed_dictionaries(
    {},
    optional={
        "age": st.none() | st.floats(-LARGEST, LARGEST),
        "city": st.none() | st.text(max_size=50),
        "member": st.none() | st.booleans(),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(records)
def test_any_record_survives_the_log(record: dict[str, Any]) -> None:
    kind = Record(fields=FIELDS)
    parsed = TypeAdapter(kind.instance_type).validate_python(record)
    loaded = kind.load(kind.dump(kind.parse(parsed)))
    first, second = kind.collate([kind.prepare(record)]), kind.collate([kind.prepare(loaded)])
    assert torch.equal(first["numbers"].nan_to_num(-1), second["numbers"].nan_to_num(-1))
    assert torch.equal(first["strings"], second["strings"])


def test_a_missing_name_and_null_are_the_same_missing_value() -> None:
    kind = Record(fields=FIELDS)
    batch = kind.collate([{}, {"age": None, "city": None, "member": None}])
    assert batch["numbers"].isnan().all()
    assert batch["strings"].tolist() == [[-1], [-1]]


def test_unknown_names_are_refused_or_ignored_by_setting() -> None:
    with pytest.raises(ValidationError, match="extra"):
        TypeAdapter(Record(fields=FIELDS).instance_type).validate_python({"aeg": 1.0})
    ignoring = TypeAdapter(Record(fields=FIELDS, unknown="ignore").instance_type)
    assert ignoring.validate_python({"aeg": 1.0, "age": 2.0}) == {"age": 2.0}


@pytest.mark.parametrize("record", [{"age": "1"}, {"age": True}, {"city": 1}, {"member": 1}, {"member": "true"}])
def test_a_value_of_another_type_is_refused(record: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Record(fields=FIELDS).instance_type).validate_python(record)


def test_strings_of_different_fields_have_different_codes() -> None:
    kind = Record(fields={"a": "string", "b": "string"})
    (codes,) = kind.collate([{"a": "x", "b": "x"}])["strings"].tolist()
    assert codes[0] != codes[1]
    assert min(codes) >= 0


MODES = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "L", "P", "RGBA", "1"], "WEBP": ["RGB", "RGBA"]}


@pytest.mark.parametrize(("format", "mode"), [(format, mode) for format, modes in MODES.items() for mode in modes])
def test_every_format_and_mode_decodes_to_rgb_of_the_size(format: str, mode: str) -> None:
    picture = encoded(Image.new("RGB", (50, 30), "red").convert(mode), format)
    pixels = Picture(size=16).prepare(picture)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == torch.uint8


def test_a_picture_is_turned_upright_by_its_exif_orientation() -> None:
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (0, 0, 32, 16))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    kind = Picture(size=32)
    upright, turned = kind.prepare(encoded(image)), kind.prepare(encoded(image, "PNG", exif=exif))
    assert upright[0, 4, 4] == 255
    assert turned[0, 4, 4] == 0
    assert turned[0, 28, 4] == 255


def test_a_picture_over_the_pixel_limit_is_refused_before_it_is_decoded() -> None:
    bomb = encoded(Image.new("1", (3000, 3000)))
    with pytest.raises(InstanceError, match="pixels"):
        Picture(size=16, max_pixels=1000).prepare(bomb)
    with pytest.raises(InstanceError, match="pixels"):
        Picture(size=16, max_pixels=1000).parse_body(bomb, "image/png")


def test_a_body_that_lies_about_its_type_is_refused() -> None:
    with pytest.raises(InstanceError, match="says image/jpeg and holds a PNG"):
        Picture().parse_body(encoded(Image.new("RGB", (9, 9))), "image/jpeg")


@pytest.mark.parametrize("cut", [0, 10, 60, 200])
def test_a_truncated_picture_is_refused(cut: int) -> None:
    noise = Image.effect_noise((64, 64), 90)
    with pytest.raises(InstanceError):
        Picture(size=16).prepare(encoded(noise, "JPEG")[:cut])


def test_a_format_that_is_not_taken_is_refused() -> None:
    with pytest.raises(InstanceError):
        Picture(size=16).prepare(encoded(Image.new("RGB", (9, 9)), "GIF"))


@pytest.mark.parametrize("text", ["not base64!", "abc", "ä"])
def test_bad_base64_is_refused(text: str) -> None:
    with pytest.raises(InstanceError, match="base64"):
        Picture().parse(EncodedImage(b64=text))


def test_a_picture_is_kept_as_its_bytes() -> None:
    kind, picture = Picture(), encoded(Image.new("RGB", (9, 9)))
    parsed = kind.parse(EncodedImage(b64=base64.b64encode(picture).decode()))
    assert kind.load(kind.dump(parsed)) == picture


@pytest.mark.parametrize("kind", [Vector(length=3), Vector(length=9), Record(fields=FIELDS), Picture(size=16)])
def test_the_example_is_an_instance(kind: Any) -> None:
    value = TypeAdapter(kind.instance_type).validate_python(dict(kind.example) if isinstance(kind, Picture) else kind.example)
    assert kind.collate([kind.prepare(kind.parse(value))])


def test_a_picture_with_broken_metadata_is_told_as_broken() -> None:
    picture = (Path(__file__).parent / "broken_exif.jpg").read_bytes()  # found by flipping bytes: Pillow raises struct.error
    with pytest.raises(InstanceError, match="broken"):
        Picture(size=32).prepare(picture)


def test_a_grey_png_of_16_bits_keeps_its_shades() -> None:
    shades = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    pixels = Picture(size=16).prepare(encoded(Image.fromarray(shades)))
    assert torch.equal(pixels[0], torch.from_numpy((shades >> 8).astype(np.uint8)))


def test_a_picture_over_pillows_own_limit_is_told_by_its_size() -> None:
    bomb = bytearray(encoded(Image.new("1", (8, 8))))
    bomb[16:24] = (20_000).to_bytes(4, "big") * 2  # its header's width and height
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(InstanceError, match="more pixels than the limit of 1000"):
        Picture(size=16, max_pixels=1000).prepare(bytes(bomb))


def test_a_phones_file_of_several_jpegs_is_the_first_of_them() -> None:
    first, second = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    body = encoded(first, "MPO", save_all=True, append_images=[second])
    kind = Picture(size=16)
    red, _, blue = kind.prepare(kind.parse_body(body, "image/jpeg")).float().mean(dim=(1, 2)).tolist()
    assert red > blue


def test_a_large_jpeg_decoded_at_reduced_scale_looks_like_the_whole_one() -> None:
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((1280, 853))
    kind, jpeg = Picture(size=64), encoded(photo, "JPEG", quality=95)
    assert kind.decode(jpeg, least=128).size == (320, 214)
    whole, reduced = kind.scale(kind.decode(jpeg)), kind.prepare(jpeg)
    assert (whole.int() - reduced.int()).abs().float().mean() < 2
