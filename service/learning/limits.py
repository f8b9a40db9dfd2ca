"""Limits of what an update may make, whatever the data says."""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Tensor

from models.base import OnlineModel


class UpdateRefused(Exception):
    """The update made a model that must not be served."""


def norm_of(model: OnlineModel) -> float:
    """Return the norm of all that is trained."""
    return _norm([parameter.detach() for _, parameter in model.trainable()])


def check_finite(model: OnlineModel) -> None:
    """Raise UpdateRefused if a parameter or statistic is no longer a finite number."""
    # The norms of all that changes first, which nothing infinite survives: a look at each number would cost as much as a step.
    trained = (parameter.detach() for _, parameter in model.trainable())
    buffers = chain.from_iterable(part.buffers() for _, part in model.changing())
    if math.isfinite(_norm([tensor for tensor in chain(trained, buffers) if tensor.is_floating_point()])):
        return
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UpdateRefused(f"the update made {name} infinite or not a number")


def _norm(tensors: list[Tensor]) -> float:
    """Return the norm of all of them, none of which is copied."""
    return float(torch.stack(torch._foreach_norm(tensors)).norm()) if tensors else 0.0
