"""Running mean and variance held in buffers, so that they are part of a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Welford's online mean and variance per column (Welford 1962; merged in batches, Chan et al. 1979).

    Robust to outliers: once `settled` values of a column are known, a new one counts as at most `reach` standard
    deviations from the mean, so a single wild value can't flatten all others, and a real shift is still followed.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor
    std: Tensor
    """The standard deviation, 1 where a column has not varied yet, float64 [width]: worked out when it changes."""
    scale: Tensor
    shift: Tensor
    """What a value is multiplied by and what is added for its z-score, float64 [width]: worked out with `std`."""

    settled = 30
    reach = 10.0

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("count", "mean", "squares"):
            self.register_buffer(name, torch.zeros(width, dtype=torch.float64))
        for name, value in (("std", 1.0), ("scale", 1.0), ("shift", 0.0)):
            self.register_buffer(name, torch.full((width,), value, dtype=torch.float64), persistent=False)
        self.register_load_state_dict_post_hook(RunningMoments._derive)  # type: ignore[no-untyped-call]

    def observe(self, values: Tensor) -> None:
        """Take in values, float64 [batch, width]; NaN is a missing value and counts nowhere."""
        self._merge(self._tame(values))
        self._derive()

    def standardise(self, values: Tensor, limit: float) -> Tensor:
        """Return z-scores cut to +-limit, float32 [batch, width]; NaN stays NaN."""
        return torch.addcmul(self.shift, values, self.scale).clamp_(-limit, limit).float()

    def _tame(self, values: Tensor) -> Tensor:
        slack = self.reach * self.std
        tamed = values.clamp(self.mean - slack, self.mean + slack)
        return torch.where(self.count >= self.settled, tamed, values)

    def _merge(self, values: Tensor) -> None:
        known = ~values.isnan()  # [batch, width]
        count = known.sum(0)
        mean = values.nansum(0) / count.clamp(min=1)
        squares = torch.where(known, values - mean, 0.0).square().sum(0)
        total = self.count + count
        delta = torch.where(count > 0, mean - self.mean, 0.0)
        share = count / total.clamp(min=1)
        self.squares += squares + delta.square() * self.count * share
        self.mean += delta * share
        self.count.copy_(total)

    def _derive(self, *_: object) -> None:
        variance = self.squares / (self.count - 1).clamp(min=1)
        self.std = torch.where(variance > 0, variance, 1.0).sqrt()
        self.scale = 1 / self.std
        self.shift = -self.mean * self.scale
