"""Models that can learn online: plain torch, usable in a notebook without the service."""

from models.base import Batch, Encoder, Head, OnlineModel
from models.registry import build_model

__all__ = ["Batch", "Encoder", "Head", "OnlineModel", "build_model"]
