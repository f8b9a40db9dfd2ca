"""A small convolutional encoder, for small pictures and for learning from nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.base import Encoder
from models.errors import SpecificationError
from models.inputs import Batch, InputKind, Picture

GROUPS = 8  # of GroupNorm (Wu and He 2018), which needs no batch statistics: an update may be of one item


class Convolutional(Encoder):
    """Blocks of two 3x3 convolutions, GroupNorm and ReLU, each halving the picture's sides; their mean is the features."""

    def __init__(
        self,
        input: InputKind,
        *,
        channels: Annotated[
            list[Annotated[PositiveInt, Field(multiple_of=GROUPS)]],
            Field(min_length=1, description=f"Channels of each block, multiples of {GROUPS}."),
        ] = [32, 64, 128],  # noqa: B006  # read only
    ) -> None:
        super().__init__()
        if not isinstance(input, Picture):
            raise SpecificationError("model.encoder.name", f"convolutional takes image inputs, not {input.kind}")
        if input.size < 2 ** len(channels):
            raise SpecificationError("model.encoder.channels", f"pictures of {input.size} pixels can't be halved so often")
        self.blocks = nn.Sequential(*map(_block, [3, *channels[:-1]], channels))
        self.width = channels[-1]

    def forward(self, batch: Batch) -> Tensor:
        """Return features [batch, width] for uint8 pixels [batch, 3, size, size]."""
        maps: Tensor = self.blocks(batch["pixels"].float() / 127.5 - 1)
        return maps.mean((2, 3))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(),
    )
