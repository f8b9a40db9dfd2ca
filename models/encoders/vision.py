"""Vision encoder: a backbone of torchvision, or from elsewhere, its last layer taken off; frozen, or trained in parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torchvision
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.base import Encoder
from models.errors import SpecificationError
from models.imports import imported
from models.inputs import Batch, InputKind, Picture
from models.lora import LowRank
from models.weights import fetched, is_file, read_tensors, weights_entry

# What ImageNet weights were trained with; as good as any other scale for a model without weights.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

WEIGHTS = "model.encoder.weights"
TRUNK = 0.9  # a module that holds this share of all parameters is looked into for blocks


class Backbone(Encoder):
    """Pixels -> features before the classifier of a pretrained network."""

    mean: Tensor
    std: Tensor

    # Batch statistics of fewer instances are noise (and undefined for one): then the running ones are used.
    smallest_norm_batch = 8

    def __init__(
        self,
        input: InputKind,
        *,
        backbone: Annotated[
            str, Field(description="A classification model of torchvision.models, or package.module:name of what makes one.")
        ] = "resnet18",
        weights: Annotated[
            str, Field(description='A torchvision weights name, a local .pth or .safetensors file, or "none".')
        ] = "DEFAULT",
        train: Annotated[
            Literal["head", "lora", "all"] | PositiveInt,
            Field(
                description='What learns. "head": the head alone, the backbone is frozen; a number: the last blocks too;'
                ' "lora": low-rank adapters in every layer; "all".'
            ),
        ] = "head",
        rank: Annotated[PositiveInt, Field(description="Rank of the low-rank adapters.")] = 8,
        layer_decay: Annotated[
            float, Field(gt=0, le=1, description="Factor on the learning rate from each block to the one before it.")
        ] = 0.8,
    ) -> None:
        super().__init__()
        if not isinstance(input, Picture):
            raise SpecificationError("model.encoder.name", f"torchvision takes image inputs, not {input.kind}")
        self.backbone, self.width = _headless(_build(backbone, weights))
        self.layer_decay = layer_decay
        self._blocks = list(_blocks(self.backbone))
        self._trained = self._choose(train, rank)
        mean, std = _normalisation(backbone, weights)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self._frozen = not any(parameter.requires_grad for parameter in self.parameters())  # asked for again and again

    @property
    def frozen(self) -> bool:
        """Whether the backbone keeps its initial tensors."""
        return self._frozen

    def fixed(self) -> set[str]:
        """Return the names of the tensors that no update changes."""
        return self.state_dict().keys() - set(self._moving())

    def rates(self) -> dict[str, float]:
        """Return a smaller factor for each block further from the head (Howard and Ruder 2018); adapters have none."""
        depths = {f"backbone.{part}.": depth for depth, block in enumerate(reversed(self._blocks)) for part in block}
        return {
            name: self.layer_decay**depth
            for prefix, depth in depths.items()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and name.startswith(prefix) and "parametrizations" not in name
        }

    def train_on(self, size: int) -> None:
        """Enter training mode where it learns; normalisation layers stay with their running statistics on few instances."""
        self.eval()
        for module in self._trained:
            module.train()
            for part in module.modules() if size < self.smallest_norm_batch else ():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def forward(self, batch: Batch) -> Tensor:
        """Return features [batch, width] for uint8 pixels [batch, 3, size, size]."""
        pixels = (batch["pixels"].float() / 255 - self.mean) / self.std
        features: Tensor = self.backbone(pixels)
        return features.flatten(1).float()

    @staticmethod
    def preferred_input(options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of the input that torchvision's weights were evaluated with; none for other weights.

        They belong together: who gives a size of their own gets none of them.
        """
        entry = _torchvision_weights(options["backbone"], options["weights"])
        if entry is None:
            return {}
        transforms = entry.transforms()
        preferred = {"size": transforms.crop_size[0], "resize": transforms.resize_size[0]}
        return {**preferred, "interpolation": transforms.interpolation.value}

    def _choose(self, train: str | int, rank: int) -> list[nn.Module]:
        """Make what is to learn trainable, and return the modules that go into training mode."""
        self.backbone.requires_grad_(train == "all")
        if train == "all":
            return [self.backbone]
        if train == "lora":
            for layer, name in [(each, _dense_weight(each)) for each in self.backbone.modules()]:
                if name is not None:
                    parametrize.register_parametrization(layer, name, LowRank(getattr(layer, name), rank))
        if not isinstance(train, int):
            return []
        if train > len(self._blocks):
            raise SpecificationError("model.encoder.train", f"the backbone has {len(self._blocks)} blocks, not {train}")
        parts = [part for block in self._blocks[-train:] for part in block]
        return [self.backbone.get_submodule(name).requires_grad_() for name in parts]

    def _moving(self) -> Iterator[str]:
        """Yield the names of the tensors that an update may change: what is trained, and the statistics of what trains."""
        yield from (name for name, parameter in self.named_parameters() if parameter.requires_grad)
        trained = {id(part) for module in self._trained for part in module.modules()}
        for name, module in self.named_modules():
            if id(module) in trained:
                yield from (f"{name}.{key}" for key, _ in module.named_buffers(recurse=False))


def _dense_weight(module: nn.Module) -> str | None:
    """Return the name of the weight that an adapter can stand beside, None where a module has none."""
    if isinstance(module, nn.MultiheadAttention):
        return "in_proj_weight" if module.in_proj_weight is not None else None
    return "weight" if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1) else None


def _blocks(model: nn.Module) -> Iterator[list[str]]:
    """Yield the blocks that a network is a chain of, from the input on, each as the names of its modules.

    A block is a residual block, a layer, a stage: what stands in plain containers, and in what holds nearly all parameters.
    A normalisation that stands alone belongs to what is before it.
    """
    total = sum(parameter.numel() for parameter in model.parameters())

    def walk(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        for child_name, child in module.named_children():
            full, size = f"{name}{child_name}", sum(parameter.numel() for parameter in child.parameters())
            if type(child) in {nn.Sequential, nn.ModuleList} or size > TRUNK * total:
                yield from walk(f"{full}.", child)
            elif size:
                yield full, child

    block: list[str] = []
    for name, module in walk("", model):
        if block and any(parameter.dim() > 1 for parameter in module.parameters()):
            yield block
            block = []
        block.append(name)
    yield block


def _build(name: str, weights: str) -> nn.Module:
    """Return the network with its weights. Raises SpecificationError."""
    local = is_file(weights)
    if ":" in name:
        if not local and weights != "none":
            raise SpecificationError(WEIGHTS, f"{weights!r} is neither a local file nor none")
        model = _made(name)
    else:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise SpecificationError("model.encoder.backbone", f"{name!r} is not one of {', '.join(known)}")
        entry = None if local or weights == "none" else weights_entry(WEIGHTS, name, weights)
        model = _without_auxiliaries(_downloaded(name, entry))
    return _load(model, Path(weights)) if local else model


def _made(path: str) -> nn.Module:
    """Return the network that a function or class of somebody else's makes. Raises SpecificationError."""
    factory = imported("model.encoder.backbone", path)
    try:
        model = factory()
    except Exception as exc:  # anything can go wrong in it
        raise SpecificationError("model.encoder.backbone", f"{path} can't be made ({type(exc).__name__}: {exc})") from exc
    if not isinstance(model, nn.Module):
        raise SpecificationError("model.encoder.backbone", f"{path} makes no torch.nn.Module")
    return model


def _downloaded(name: str, entry: Any) -> nn.Module:
    """Return a torchvision model; its weights are fetched and checked by torchvision, once. Raises SpecificationError."""
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    if entry is not None:
        model.load_state_dict(fetched(WEIGHTS, entry))
    return model


def _torchvision_weights(name: str, weights: str) -> Any:
    """Return torchvision's entry for weights that it has, None for others."""
    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    choices = torchvision.models.get_model_weights(name)
    return choices[weights] if weights in choices.__members__ else None


def _normalisation(name: str, weights: str) -> tuple[Any, Any]:
    entry = _torchvision_weights(name, weights)
    return (MEAN, STD) if entry is None else (entry.transforms().mean, entry.transforms().std)


def _load(model: nn.Module, path: Path) -> nn.Module:
    """Load a local file. Its classifier may be of another shape: that layer is taken off anyway."""
    state = read_tensors(WEIGHTS, path)
    last, _ = _last_layer(model)
    own = model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name in own and not name.startswith(f"{last}.")}
    missing = [name for name in own if name not in kept and not name.startswith(f"{last}.")]
    if missing:
        raise SpecificationError(WEIGHTS, f"{path.name} has no tensor {missing[0]!r}")
    wrong = [name for name, tensor in kept.items() if tensor.shape != own[name].shape]
    if wrong:
        got, expected = tuple(kept[wrong[0]].shape), tuple(own[wrong[0]].shape)
        raise SpecificationError(WEIGHTS, f"{wrong[0]} is {got} in {path.name}, expected {expected}")
    model.load_state_dict(kept, strict=False)
    return model


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
    if not layers:
        raise SpecificationError("model.encoder.backbone", "it has no linear or convolutional layer to take off")
    return layers[-1]


def _headless(model: nn.Module) -> tuple[nn.Module, int]:
    """Return the model with its last layer replaced by the identity, and the width of what it then puts out."""
    name, layer = _last_layer(model)
    parent_name, _, child = name.rpartition(".")
    parent: Any = model.get_submodule(parent_name)
    setattr(parent, child, nn.Identity())
    return model, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
