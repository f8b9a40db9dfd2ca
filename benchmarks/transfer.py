"""What a pretrained backbone is worth, over HTTP.

`python -m benchmarks.transfer [photos] [digits]`. photos: six classes of small photos (../shared/data), a frozen
EfficientNet-Lite0 against the same head on raw pixels and the same network from scratch, by labels per class. digits: a
ResNet-18 that is trained here on one half of the digits' classes, then adapted to the other half, against one from scratch.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from benchmarks.zeroshot import service
from service.demo.backbones import encoder
from service.demo.zeroshot import encoded
from tests.running import ROOT, learn

PHOTOS = ROOT.parent / "shared" / "data" / "photos"
STEPS = (1, 5, 10, 50)  # labels of each class
SIDE = 160  # pixels, to which the photos of 32 are enlarged
SMALL = 32

Rows = Sequence[tuple[Any, str]]

HEAD = '[model.head]\nname = "classification"\nexperts = ["linear", "prototype"]\n'
PICTURES = '[model.input]\nkind = "image"\nsize = {size}\n[model.encoder]\nname = "torchvision"\nbackbone = "{backbone}"\n'
PIXELS = f'[model.input]\nkind = "vector"\nlength = {3 * SMALL * SMALL}\n[model.encoder]\nname = "tabular"\nbins = 0\n'


def photos() -> None:
    """Print the accuracy on half of the photos after so many labels per class from the other half."""
    paths = sorted(PHOTOS.glob("*/*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))
    rows = [(paths[i].read_bytes(), paths[i].parent.name) for i in order]
    pretrained = encoder()
    effnet = PICTURES.format(size=SIDE, backbone=pretrained["backbone"])
    configurations: dict[str, tuple[str, Callable[[bytes], Any]]] = {
        "frozen EfficientNet-Lite0": (f'{effnet}weights = "{pretrained["weights"]}"\n{HEAD}', encoded),
        "raw pixels": (PIXELS + HEAD, _pixels),
        "the same network from scratch": (f'{effnet}weights = "none"\ntrain = "all"\nlayer_decay = 1.0\n{HEAD}', encoded),
    }
    for name, (config, form) in configurations.items():
        formed = [(form(photo), label) for photo, label in rows]
        with service(config) as client:
            course = ", ".join(_course(client, formed[:300], formed[300:]))
        print(f"photos   {name}: {course}", flush=True)


def _course(client: httpx.Client, test: Rows, rest: Rows) -> Iterator[str]:
    by_label = {label: [row for row in rest if row[1] == label] for label in sorted({label for _, label in rest})}
    sent = 0
    for count in STEPS:
        for index in range(sent, count):
            learn(client, [own[index] for own in by_label.values() if index < len(own)])
        sent = count
        yield f"{count}: {np.mean(_right(client, test)):.3f}"


def _right(client: httpx.Client, rows: Rows) -> list[bool]:
    right: list[bool] = []
    for start in range(0, len(rows), 20):
        part = rows[start : start + 20]
        answers = client.post("/predict", json={"instances": [instance for instance, _ in part], "top_k": 1}).raise_for_status()
        right += [a["label"] == label for a, (_, label) in zip(answers.json()["predictions"], part, strict=True)]
    return right


def _pixels(photo: bytes) -> list[float]:
    values: list[float] = (np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"), float).ravel() / 255).tolist()
    return values


def digits() -> None:
    """Print how many labels of five new classes it takes until 90 of the latest 100 predictions were right."""
    pictures, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pictures, labels = pictures[order], labels[order]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "half.safetensors"
        _pretrain(pictures[labels < 5], labels[labels < 5], weights)
        rows = [(encoded(_png(picture)), str(label)) for picture, label in zip(pictures, labels, strict=True) if label >= 5]
        resnet = PICTURES.format(size=SMALL, backbone="resnet18")
        for name, options in (
            ("pretrained on the other half, frozen", f'weights = "{weights}"\n'),
            ("the same, its last two blocks learn", f'weights = "{weights}"\ntrain = 2\n'),
            ("the same, all of it learns", f'weights = "{weights}"\ntrain = "all"\n'),
            ("from scratch", 'weights = "none"\ntrain = "all"\nlayer_decay = 1.0\n'),
        ):
            with service(resnet + options + HEAD) as client:
                print(f"digits   {name}: {_needed(client, rows[:400])}", flush=True)


def _needed(client: httpx.Client, rows: Rows) -> str:
    right: list[bool] = []
    for number, row in enumerate(rows):
        answer = client.post("/predict", json={"instances": [row[0]], "top_k": 1})
        right.append(answer.is_success and answer.json()["predictions"][0]["label"] == row[1])
        learn(client, [row])
        if number >= 20 and np.mean(right[-100:]) >= 0.9:
            return f"{number + 1} labels to 90 %"
    return f"{np.mean(right[-100:]):.3f} over the last 100 of {len(rows)} labels"


def _pretrain(pictures: Any, labels: Any, weights: Path) -> None:
    """Train a ResNet-18 on digits, and save it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torchvision.models.resnet18(num_classes=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    grey = torch.stack([torch.from_numpy(np.asarray(_enlarged(picture), np.float32)) / 255 for picture in pictures])
    inputs = ((grey.unsqueeze(-1) - mean) / std).permute(0, 3, 1, 2)  # [items, 3, side, side]
    targets = torch.from_numpy(labels)
    for _ in range(4):
        for batch in torch.randperm(len(inputs)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)


def _enlarged(picture: Any) -> Image.Image:
    small = Image.fromarray((picture.reshape(8, 8) * 15).astype(np.uint8))
    return small.resize((SMALL, SMALL), Image.Resampling.BILINEAR)


def _png(picture: Any) -> bytes:
    encoded_picture = io.BytesIO()
    _enlarged(picture).save(encoded_picture, "PNG")
    return encoded_picture.getvalue()


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["photos", "digits"]
    if "photos" in wanted and PHOTOS.exists():
        photos()
    if "digits" in wanted:
        digits()
