"""How the tensors of a version lie in memory where they are served."""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out(tensor: Tensor) -> Tensor:
    """Put the weights of a convolution into the layout in which it is computed fastest; the activations follow them."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.contiguous()
