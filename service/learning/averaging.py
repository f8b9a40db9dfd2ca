"""Weight averaging: what is served is a running mean of the weights that the optimizer walks over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

WARM_UP_STEPS = 10  # the first steps count more: what they start from is arbitrary


class WeightAverage:
    """An exponential moving average of the trainable parameters (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

    The model holds the averages; the weights that are trained stand in for them only inside `training`. With a decay of 0
    the two are one.
    """

    def __init__(self, decay: float, parameters: Mapping[str, nn.Parameter]) -> None:
        self._decay = decay
        self._steps = torch.zeros((), dtype=torch.float64)
        self._parameters = parameters
        self._trained = {name: parameter.detach().clone() for name, parameter in self._parameters.items()} if decay else {}

    def follow(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Go on with these parameters: the new rows of those that grew are trained from where they start."""
        self._parameters = parameters
        for name, trained in self._trained.items():
            if trained.shape != parameters[name].shape:
                grown = parameters[name].detach().clone()
                grown[: len(trained)] = trained[: len(grown)]
                self._trained[name] = grown

    @contextmanager
    def training(self) -> Iterator[None]:
        """Put the trained weights in the model's place of the averages, for steps; after each one call `take`."""
        self._swap()
        yield
        self._swap()

    def take(self, scale: float) -> None:
        """Take in the weights after a step of a length of `scale` times the usual one."""
        if not self._decay:
            return
        self._steps += scale
        steps = self._steps.item()
        decay = min(self._decay, steps / (WARM_UP_STEPS + steps)) ** scale
        averages = [self._trained[name] for name in self._parameters]  # swapped: see `training`
        current = [parameter.data for parameter in self._parameters.values()]
        get_ema_multi_avg_fn(decay)(averages, current, None)  # type: ignore[no-untyped-call]  # torch leaves it unannotated

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {"steps": self._steps, **{f"trained.{name}": tensor for name, tensor in self._trained.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        self._steps = tensors["steps"].clone()
        self._trained = {name: tensors[f"trained.{name}"].to(tensor.device).clone() for name, tensor in self._trained.items()}

    def _swap(self) -> None:
        for name, trained in self._trained.items():
            parameter = self._parameters[name]
            self._trained[name], parameter.data = parameter.data, trained
