"""A real model whose forward pass can be held, so that a test decides when the engine is busy."""

from __future__ import annotations

import threading

from torch import Tensor

from models.base import Batch, OnlineModel
from models.registry import build_model

SPEC = {
    "input": {"kind": "vector", "length": 2},
    "encoder": {"name": "tabular", "hidden": [4]},
    "head": {"name": "classification", "classes": ["a", "b"]},
}


class Gate:
    """Where the forward pass waits, and what it has seen."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.batches: list[int] = []
        self.threads: list[int] = []


class Gated(OnlineModel):
    gate: Gate

    def forward(self, batch: Batch) -> Tensor:
        self.gate.batches.append(len(batch["numbers"]))
        self.gate.threads.append(threading.get_ident())
        self.gate.entered.set()
        assert self.gate.opened.wait(20)
        if (batch["numbers"] < 0).any():
            raise RuntimeError("asked to fail")
        return super().forward(batch)


def gated_model(gate: Gate) -> OnlineModel:
    plain = build_model(SPEC, seed=0)
    model = Gated(input=plain.input, encoder=plain.encoder, head=plain.head)
    model.gate = gate
    return model
