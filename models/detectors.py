"""Networks that find things in pictures: torchvision's detectors by name, and a small one that learns on a CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from models.errors import SpecificationError
from models.weights import fetched, is_file, read_tensors, weights_entry

SMALL = "small"
GROUPS = 8
KINDS = ("fasterrcnn", "fcos", "retinanet", "ssd")  # the others find more than boxes
FOUND = ("score_thresh", "nms_thresh", "detections_per_img")

NAME, WEIGHTS = "model.head.detector", "model.head.weights"


class SmallBackbone(nn.Module):
    """Pixels [batch, 3, H, W] -> maps of 1/8 and 1/16 of the sides, joined top-down (Lin et al. 2017)."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.out_channels = channels
        self.quarter = nn.Sequential(_halved(3, 16), _halved(16, 32))
        self.eighth = _halved(32, 48)
        self.sixteenth = _halved(48, 64)
        self.from_eighth = nn.Conv2d(48, channels, 1)
        self.from_sixteenth = nn.Conv2d(64, channels, 1)

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        """Return the maps, finer first, [batch, channels, ...]."""
        fine = self.eighth(self.quarter(pixels))
        coarse = self.from_sixteenth(self.sixteenth(fine))
        joined = self.from_eighth(fine) + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return OrderedDict(fine=joined, coarse=coarse)


class _Unscaled(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def build_detector(name: str, weights: str, *, classes: int, min_score: float, max_overlap: float, max_boxes: int) -> nn.Module:
    """Return a detector as torchvision calls it, whose label 0 is nothing and 1 to `classes` are classes.

    Of weights, all is taken but the layers that tell classes. Raises SpecificationError.
    """
    found = dict(zip(FOUND, (min_score, max_overlap, max_boxes), strict=True))
    if name == SMALL:
        if weights != "none":
            raise SpecificationError(WEIGHTS, f"the detector {SMALL} has none")
        return _small(classes, found)
    known = [each for each in torchvision.models.list_models(module=torchvision.models.detection) if each.startswith(KINDS)]
    if name not in known:
        raise SpecificationError(NAME, f"{name!r} is not one of {', '.join([SMALL, *known])}")
    if name.startswith("fasterrcnn"):
        found = {f"box_{option}": value for option, value in found.items()}
    model: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=classes + 1, **found)
    if not name.startswith("ssd"):  # these are made for one size
        model.transform = _unscaled(model.transform)
    if isinstance(model, FCOS):
        _enliven(model)
    if is_file(weights):
        _take(model, read_tensors(WEIGHTS, Path(weights)))
    elif weights != "none":
        _take(model, fetched(WEIGHTS, weights_entry(WEIGHTS, name, weights)))
    return model


def losses_of(detector: Any, pictures: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> Tensor:
    """Return the sum of a detector's losses of each picture, [batch], each as if it were alone.

    Where a detector tells them apart behind its network, that runs once, on all of them: half the time on a CPU.
    """
    if not isinstance(detector, FCOS | RetinaNet):
        return torch.stack(
            [sum(detector([picture], [target]).values()) for picture, target in zip(pictures, targets, strict=True)]
        )
    images, scaled = detector.transform(list(pictures), list(targets))
    maps = list(detector.backbone(images.tensors).values())
    outputs: dict[str, Tensor] = detector.head(maps)
    anchors = detector.anchor_generator(images, maps)
    levels = ([each.shape[2] * each.shape[3] for each in maps],) if isinstance(detector, FCOS) else ()
    own = [{name: output[index : index + 1] for name, output in outputs.items()} for index in range(len(pictures))]
    each_of = zip(scaled, own, anchors, strict=True)
    return torch.stack([sum(detector.compute_loss([t], o, [a], *levels).values()) for t, o, a in each_of])


def _small(classes: int, found: dict[str, Any]) -> nn.Module:
    anchors = AnchorGenerator(sizes=((16,), (48,)), aspect_ratios=((1.0,), (1.0,)))
    model: nn.Module = FCOS(SmallBackbone(), classes + 1, anchor_generator=anchors, **found)
    model.transform = _unscaled(model.transform)
    _enliven(model)
    return model


def _enliven(model: FCOS) -> None:
    """Begin with every side of every box at about one unit of its level.

    torchvision cuts sides at 0, and begins around it: a side that is below it everywhere learns nothing, ever.
    """
    nn.init.ones_(model.head.regression_head.bbox_reg.bias)


def _unscaled(transform: Any) -> nn.Module:
    """Return a transform that leaves pictures in the size that they come in: the input has scaled them."""
    return _Unscaled(0, 0, transform.image_mean, transform.image_std, transform.size_divisible)


def _take(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights; layers of another shape tell other classes, and stay as they are. Raises SpecificationError."""
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise SpecificationError(WEIGHTS, f"there is no tensor {missing[0]!r}")
    kept = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    if not any(name.startswith("backbone.") for name in kept):
        raise SpecificationError(WEIGHTS, "no tensor of its backbone has the shape of this detector's")
    model.load_state_dict(kept, strict=False)


def _halved(inputs: int, outputs: int) -> nn.Sequential:
    """Return two convolutions with GroupNorm (Wu and He 2018), of which the first halves the sides."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(),
    )
