"""Vision encoder: any torchvision classification model, its last layer taken off."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Literal

import torch
import torchvision
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.base import Encoder
from models.errors import SpecificationError
from models.inputs import Batch, InputKind, Picture

# What torchvision's ImageNet weights were trained with; as good as any other scale for a model without weights.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class TorchvisionEncoder(Encoder):
    """A torchvision backbone: pixels -> features before its classifier."""

    mean: Tensor
    std: Tensor

    # Batch statistics of fewer instances are noise (and undefined for one): then the running ones are used.
    smallest_norm_batch = 8

    def __init__(
        self,
        input: InputKind,
        *,
        backbone: Annotated[str, Field(description="A classification model of torchvision.models.")] = "resnet18",
        weights: Annotated[
            str, Field(description='"none", a torchvision weights name, or a local .pth or .safetensors file.')
        ] = "none",
        train: Annotated[
            Literal["all", "head"], Field(description='"head" freezes the backbone and trains the head alone.')
        ] = "all",
    ) -> None:
        super().__init__()
        if not isinstance(input, Picture):
            raise SpecificationError("model.encoder.name", f"torchvision takes image inputs, not {input.kind}")
        self.train_what = train
        self.backbone, self.width = _headless(_build(backbone, weights))
        self.backbone.requires_grad_(not self.frozen)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @property
    def frozen(self) -> bool:
        """Whether the backbone keeps its initial tensors."""
        return self.train_what == "head"

    def train_on(self, size: int) -> None:
        """Enter training mode; normalisation layers stay with their running statistics on few instances."""
        self.train(not self.frozen)
        if size < self.smallest_norm_batch:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def forward(self, batch: Batch) -> Tensor:
        """Return features [batch, width] for uint8 pixels [batch, 3, size, size]."""
        pixels = (batch["pixels"].float() / 255 - self.mean) / self.std
        features: Tensor = self.backbone(pixels)
        return features.flatten(1)


def _build(name: str, weights: str) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise SpecificationError("model.encoder.backbone", f"{name!r} is not one of {', '.join(known)}")
    path = Path(weights)
    if weights == "none":
        return _without_auxiliaries(torchvision.models.get_model(name, weights=None))
    if path.suffix in {".pth", ".pt", ".safetensors"}:
        return _load(_without_auxiliaries(torchvision.models.get_model(name, weights=None)), path)
    choices = torchvision.models.get_model_weights(name)
    if weights not in choices.__members__:
        allowed = ", ".join(["none", *choices.__members__])
        raise SpecificationError("model.encoder.weights", f"{weights!r} is neither a file nor one of {allowed}")
    return _without_auxiliaries(torchvision.models.get_model(name, weights=choices[weights]))


def _load(model: nn.Module, path: Path) -> nn.Module:
    """Load a local file. Its classifier may be of another shape: that layer is taken off anyway."""
    if not path.is_file():
        raise SpecificationError("model.encoder.weights", f"there is no file {path}")
    state = _read(path)
    last, _ = _last_layer(model)
    own = model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name in own and not name.startswith(f"{last}.")}
    missing = [name for name in own if name not in kept and not name.startswith(f"{last}.")]
    if missing:
        raise SpecificationError("model.encoder.weights", f"{path.name} has no tensor {missing[0]!r}")
    wrong = [name for name, tensor in kept.items() if tensor.shape != own[name].shape]
    if wrong:
        got, expected = tuple(kept[wrong[0]].shape), tuple(own[wrong[0]].shape)
        raise SpecificationError("model.encoder.weights", f"{wrong[0]} is {got} in {path.name}, expected {expected}")
    model.load_state_dict(kept, strict=False)
    return model


def _read(path: Path) -> dict[str, Tensor]:
    """Read tensors, and nothing that could run: `weights_only` unpickles no code."""
    try:
        state: Any = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, EOFError, SafetensorError, UnpicklingError) as exc:
        raise SpecificationError("model.encoder.weights", f"{path.name} can't be read as tensors") from exc
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise SpecificationError("model.encoder.weights", f"{path.name} is not a state dict: names -> tensors")
    return state


def _without_auxiliaries(model: nn.Module) -> nn.Module:
    """Take off the auxiliary classifiers of GoogLeNet and Inception: they only serve training from scratch."""
    if hasattr(model, "aux_logits"):
        for name, value in (("aux_logits", False), ("AuxLogits", None), ("aux1", None), ("aux2", None)):
            if hasattr(model, name):
                setattr(model, name, value)
    return model


def _last_layer(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Return the classifier: the last linear layer, or SqueezeNet's last convolution."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return layers[-1]


def _headless(model: nn.Module) -> tuple[nn.Module, int]:
    """Return the model with its last layer replaced by the identity, and the width of what it then puts out."""
    name, layer = _last_layer(model)
    parent_name, _, child = name.rpartition(".")
    parent: Any = model.get_submodule(parent_name)
    setattr(parent, child, nn.Identity())
    return model, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
