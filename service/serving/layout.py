"""How the tensors of a version lie in memory where they are served."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Tensor

from service.memory import memory

ALIGNMENT = 64  # bytes, of where a tensor begins: of a line of the processor's cache


def laid_out(tensor: Tensor) -> Tensor:
    """Put the weights of a convolution into the layout in which it is computed fastest; the activations follow them."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.contiguous()


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors, laid out, into one stretch of memory: that of the file that they come from can go."""
    ends = list(accumulate(_aligned(tensor.nbytes) for tensor in tensors.values()))
    stretch = torch.frombuffer(memory(ALIGNMENT + sum(ends[-1:])), dtype=torch.uint8)
    stretch = stretch[-stretch.data_ptr() % ALIGNMENT :]
    begins = [0, *ends]
    return {
        name: _empty_like(tensor, stretch[begin : begin + tensor.nbytes]).copy_(tensor)
        for (name, tensor), begin in zip(tensors.items(), begins, strict=False)
    }


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _empty_like(tensor: Tensor, place: Tensor) -> Tensor:
    """Return a tensor like this one, laid out, that lies in a place: its bytes."""
    flat = place.view(tensor.dtype)
    if tensor.dim() == 4 and not tensor.is_contiguous(memory_format=torch.channels_last):
        outputs, inputs, height, width = tensor.shape
        return flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
    return flat.view(tensor.shape)
