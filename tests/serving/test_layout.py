from __future__ import annotations

import torch
from torch import Tensor

from service.serving.layout import ALIGNMENT, gathered, laid_out

TENSORS = {
    "convolution": torch.arange(216.0).view(4, 6, 3, 3),
    "of single points": torch.arange(24.0).view(4, 6, 1, 1),
    "of one channel": torch.arange(36.0).view(4, 1, 3, 3),
    "count": torch.tensor(7),
    "nothing": torch.zeros(0, 5),
    "bytes": torch.arange(3, dtype=torch.uint8),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "turned": torch.arange(10.0).view(2, 5).T,
    "large": torch.arange(1_000_000.0).view(1000, 1000),
}


def of(size: int) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in TENSORS.items() if tensor.nbytes < size}


def test_gathered_tensors_are_the_same_and_laid_out_as_each_would_be_alone() -> None:
    for tensors in (of(10**9), of(1000), {}):
        found = gathered(tensors)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            alone = laid_out(tensor)
            assert torch.equal(found[name], tensor)
            assert (found[name].dtype, found[name].stride()) == (alone.dtype, alone.stride()), name


def test_gathered_tensors_begin_at_lines_of_the_cache_and_share_nothing() -> None:
    for tensors in (of(10**9), of(1000)):
        found = gathered(tensors)
        assert all(tensor.data_ptr() % ALIGNMENT == 0 for tensor in found.values())
        for tensor in found.values():
            tensor.zero_()
        assert torch.equal(TENSORS["half"], torch.arange(5, dtype=torch.bfloat16))
        found["count"].fill_(3)
        assert sum(float(tensor.sum()) for tensor in found.values()) == 3
