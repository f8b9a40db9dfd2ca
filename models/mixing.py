"""Mixing the answers of several experts online, with weights that follow what each has been worth lately."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

FLOOR = -12.0  # a log probability counts as at least this: one expert's certainty must not be the end of the others
NOTHING = -1e9


def by_name(names: Sequence[str], weights: Tensor) -> dict[str, float]:
    """Return the weights of a mix, [experts], for people to read."""
    return {name: round(weight, 4) for name, weight in zip(names, weights.tolist(), strict=True)}


class LogisticMix(nn.Module):
    """Logistic mixing of class probabilities (Mahoney 2005; Mattern 2012): softmax of the weighted sum of log probabilities.

    The weights descend the gradient of the log loss at a rate that falls from `first_rate` to `last_rate`. They need
    not add up to 1: their sum is an online temperature (Guo et al. 2017), and with one expert that is all they are.

    Items that are judged together were judged by one state, and may all say the same: that a class has just begun, which the
    experts do not know yet. So at once they take at most half of a weight, or `reach` where that is more.
    """

    weights: Tensor
    items: Tensor
    applied: Tensor
    """The weights as they are applied, float32 [experts]: worked out when they change."""

    first_rate = 0.05
    last_rate = 0.005
    halving = 100  # items after which the rate is half of the first
    reach = 0.02

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((experts,), 1 / experts, dtype=torch.float64))
        self.register_buffer("items", torch.zeros((), dtype=torch.int64))
        self.register_buffer("applied", self.weights.float(), persistent=False)
        self.register_load_state_dict_post_hook(LogisticMix._derive)  # type: ignore[no-untyped-call]

    def forward(self, log_probabilities: Tensor) -> Tensor:
        """Return the logits of the mix, [batch, classes], of log probabilities [batch, experts, classes]."""
        bounded = log_probabilities.clamp(min=FLOOR)
        return self.applied.to(bounded.dtype) @ bounded

    def observe(self, log_probabilities: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Follow items that have been judged: [batch, experts, classes] and class indices [batch], one after the other.

        `weights`, [batch], shorten the step where they are below 1.
        """
        bounded = log_probabilities.detach().clamp(min=FLOOR).double().cpu().numpy()
        true = targets.cpu().numpy()[:, None, None]
        odds = bounded - np.take_along_axis(bounded, true, 2)  # logarithms, against the class that it was
        own = self.weights.cpu().numpy().copy()
        lowest = own - np.maximum(np.abs(own) / 2, self.reach)
        count = int(self.items)
        after = np.arange(count, count + len(bounded))
        rates = np.maximum(self.last_rate, self.first_rate / (1 + after / self.halving))
        rates *= np.minimum(1.0, weights.double().cpu().numpy())
        for row, rate in zip(odds, rates.tolist(), strict=True):  # thousands of times: each call here counts
            logits = own.dot(row)
            mixed = np.exp(logits - np.maximum.reduce(logits))
            own -= (rate / np.add.reduce(mixed)) * row.dot(mixed)
            np.maximum(own, lowest, out=own)
        count += len(bounded)
        self.weights.copy_(torch.from_numpy(own))
        self.items.fill_(count)
        self._derive()

    def _derive(self, *_: object) -> None:
        self.applied = self.weights.float()


class ErrorMix(nn.Module):
    """Mixing of values by exponential weights over discounted absolute errors (Littlestone and Warmuth 1994; Herbster and
    Warmuth 1998), each error in units of the label's standard deviation."""

    errors: Tensor

    eta = 0.5
    discount = 0.99
    limit = 5.0  # an error counts as at most this

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.register_buffer("errors", torch.zeros(experts, dtype=torch.float64))

    @property
    def weights(self) -> Tensor:
        """The weights of the experts, float64 [experts], adding up to 1."""
        return torch.softmax(-self.eta * self.errors, 0)

    def forward(self, values: Tensor) -> Tensor:
        """Return the mixed values [batch] of those of each expert [batch, experts]."""
        return values @ self.weights.to(values.dtype)

    def observe(self, errors: Tensor, weights: Tensor) -> None:
        """Follow the standardised absolute errors of items that have been judged, [batch, experts], with weights [batch]."""
        for row, weight in zip(errors.clamp(max=self.limit), weights.clamp(max=1), strict=True):
            self.errors.mul_(self.discount).add_(row * weight)


def let_sleep(log_probabilities: Tensor, awake: Tensor, reference: Tensor) -> Tensor:
    """Let each expert speak only of the classes that it has met lately (specialists, Freund et al. 1997).

    What it says of the others is replaced by the reference's: log probabilities [batch, experts, classes], awake bool
    [experts, classes], reference [batch, classes]. Without this, a model that does not rehearse, or that keeps the latest
    instances only, would vote with certainty against every class that has not come for a while.
    """
    asleep = ~awake  # [experts, classes]
    if not asleep.any():
        return log_probabilities
    base = reference.unsqueeze(1)  # [batch, 1, classes]
    share = base.masked_fill(asleep, NOTHING).logsumexp(2, keepdim=True)  # what the reference gives the classes awake
    own = log_probabilities.masked_fill(asleep, NOTHING)
    spoken = own - own.logsumexp(2, keepdim=True) + share
    return torch.where(awake, spoken, base)
