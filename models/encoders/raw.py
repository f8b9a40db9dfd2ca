"""No encoder: for heads that bring one of their own."""

from __future__ import annotations

from models.base import Batch, Encoder
from models.inputs import InputKind


class Raw(Encoder):
    """The tensors of the instances as the input kind collates them."""

    width = 0
    gives = "tensors"

    def __init__(self, input: InputKind) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> Batch:
        """Return the batch."""
        return batch
