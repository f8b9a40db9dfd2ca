"""Models that can learn online: plain torch, usable in a notebook without the service.

What is named here is imported when it is asked for: torch takes seconds, and the command line and the supervisor, which use
parts of this package that know nothing of it, must not wait for it, nor hold its memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.base import Batch, Encoder, Head, OnlineModel
    from models.registry import build_model

__all__ = ["Batch", "Encoder", "Head", "OnlineModel", "build_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module("models.registry" if name == "build_model" else "models.base")
    return getattr(home, name)
