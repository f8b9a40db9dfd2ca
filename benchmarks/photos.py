"""Photos of an everyday size, as cameras and browsers send them, and a ResNet-18 that serves them."""

from __future__ import annotations

import base64
import io

from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.servers import Items

RESNET = """
[model.input]
kind = "image"
size = 224
[model.encoder]
name = "torchvision"
backbone = "resnet18"
weights = "none"
[model.head]
name = "classification"
experts = ["linear"]
"""
SIZE = 500, 375  # the usual size of a photo in ImageNet


def photos(count: int, format: str = "JPEG") -> list[bytes]:
    """Return different photos: pieces of the two that scikit-learn brings."""
    whole = [Image.fromarray(image) for image in load_sample_images().images]
    return [_encoded(whole[number % 2], number, format) for number in range(count)]


def labelled(count: int) -> Items:
    """Return photos with labels of ten classes."""
    return [{"instance": {"b64": encoded(photo)}, "label": str(number % 10)} for number, photo in enumerate(photos(count))]


def encoded(photo: bytes) -> str:
    """Return a photo as it stands in JSON."""
    return base64.b64encode(photo).decode()


def _encoded(whole: Image.Image, number: int, format: str) -> bytes:
    left, top = 7 * number % (whole.width - SIZE[0]), 3 * number % (whole.height - SIZE[1])
    file = io.BytesIO()
    whole.crop((left, top, left + SIZE[0], top + SIZE[1])).save(file, format, quality=90)
    return file.getvalue()
