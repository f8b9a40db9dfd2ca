"""Limits of what an update may make, whatever the data says."""

from __future__ import annotations

import math
from itertools import chain

import torch

from models.base import OnlineModel


class UpdateRefused(Exception):
    """The update made a model that must not be served."""


def norm_of(model: OnlineModel) -> float:
    """Return the norm of all that is trained."""
    return math.sqrt(sum(float(parameter.detach().square().sum()) for _, parameter in model.trainable()))


def check_finite(model: OnlineModel) -> None:
    """Raise UpdateRefused if a parameter or statistic is no longer a finite number."""
    # One sum over all that changes first, which nothing infinite survives: a look at each tensor would cost as much as a step.
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    tensors = [tensor.flatten() for tensor in chain(trained, model.buffers()) if tensor.is_floating_point()]
    if torch.cat(tensors).sum().isfinite():
        return
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UpdateRefused(f"the update made {name} infinite or not a number")
