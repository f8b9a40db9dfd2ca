"""A model of a user's own that fails on some labels, each in another way."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from models.base import Label, OnlineModel
from models.encoders.tabular import Tabular
from models.heads.classification import Classification
from models.inputs import Vector


class PoisonableHead(Classification):
    def loss(self, features: Tensor, labels: Sequence[Label], fresh: Tensor) -> Tensor:
        if "raise" in labels:
            raise RuntimeError("this label is poison")
        if "exit" in labels:
            os._exit(3)
        if "segfault" in labels:
            ctypes.string_at(0)
        if "hang" in labels:
            threading.Event().wait()
        if "memory" in labels:  # what the kernel's out-of-memory killer does, without taking the machine along
            os.kill(os.getpid(), signal.SIGKILL)
        print("models may print")  # and must not be taken for the child's reports
        losses = super().loss(features, labels, fresh)
        return losses * torch.inf if "infinite" in labels else losses


class Poisonable(OnlineModel):
    def __init__(self) -> None:
        kind = Vector(length=4)
        encoder = Tabular(kind, hidden=[8])
        super().__init__(input=kind, encoder=encoder, head=PoisonableHead(encoder.width, experts=["linear"]))
