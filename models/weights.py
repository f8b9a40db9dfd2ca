"""Pretrained weights: torchvision's by name, or a local file; only tensors are read."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.errors import SpecificationError


def is_file(weights: str) -> bool:
    """Say whether weights are named by a local file."""
    return Path(weights).suffix in {".pth", ".pt", ".safetensors"}


def weights_entry(field: str, model: str, weights: str) -> Any:
    """Return torchvision's entry of weights for one of its models. Raises SpecificationError."""
    choices = torchvision.models.get_model_weights(model)
    if weights not in choices.__members__:
        allowed = ", ".join(["none", *choices.__members__])
        raise SpecificationError(field, f"{weights!r} is neither a file nor one of {allowed}")
    return choices[weights]


def fetched(field: str, entry: Any) -> dict[str, Tensor]:
    """Return torchvision's weights; it fetches and checks them once. Raises SpecificationError."""
    try:
        tensors: dict[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as exc:
        raise SpecificationError(field, f"{entry} can't be fetched ({exc}); name a local file, or none") from exc
    return tensors


def read_tensors(field: str, path: Path) -> dict[str, Tensor]:
    """Read a state dict, and nothing that could run: `weights_only` unpickles no code. Raises SpecificationError."""
    if not path.is_file():
        raise SpecificationError(field, f"there is no file {path}")
    try:
        state: Any = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, EOFError, SafetensorError, UnpicklingError) as exc:
        raise SpecificationError(field, f"{path.name} can't be read as tensors") from exc
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise SpecificationError(field, f"{path.name} is not a state dict: names -> tensors")
    return state
