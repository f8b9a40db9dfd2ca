"""Optimizers by name, and their state by parameter name: so it is saved without pickle and follows a class that grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from models.errors import SpecificationError
from models.registry import part

Named = Mapping[str, nn.Parameter]
Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def sgd(
    parameters: Parameters,
    *,
    lr: Annotated[PositiveFloat, Field(description="Learning rate.")] = 0.01,
    momentum: Fraction = 0.0,
    nesterov: bool = False,
    dampening: Fraction = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Stochastic gradient descent."""
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, dampening=dampening, weight_decay=weight_decay)


def adam(
    parameters: Parameters,
    *,
    lr: Annotated[PositiveFloat, Field(description="Learning rate.")] = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam (Kingma and Ba 2015)."""
    return Adam(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=True)


def adamw(
    parameters: Parameters,
    *,
    lr: Annotated[PositiveFloat, Field(description="Learning rate.")] = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
    amsgrad: bool = False,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=True)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": sgd, "adam": adam, "adamw": adamw}


def resolve_optimizer(specification: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification with defaults filled in. Raises SpecificationError."""
    _, options = part("learning.optimizer", "name", OPTIMIZERS, specification)
    # torch would say so too, but with its first optimizer it imports its compiler, which takes as long as torch itself.
    if options.get("nesterov") and (not options["momentum"] or options["dampening"]):
        raise SpecificationError("learning.optimizer", "Nesterov momentum requires a momentum and no dampening")
    return {"name": specification["name"], **options}


class NamedOptimizer:
    """A torch optimizer over a model's trainable parameters that keeps its state when one of them grows."""

    def __init__(self, specification: Mapping[str, Any], parameters: Named, rates: Mapping[str, float] | None = None) -> None:
        """Optimize these parameters, each with a factor on its learning rate (1 where none is given)."""
        self._factory, self._options = part("learning.optimizer", "name", OPTIMIZERS, specification)
        self._use(parameters, rates or {})

    @property
    def idle(self) -> bool:
        """Whether the model has no trainable parameters."""
        return not self._parameters

    def step(self, loss: Tensor, scale: float = 1.0) -> None:
        """Take one step down the gradient of a scalar loss, with `scale` times the learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._options["lr"] * group["rate"] * scale
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        self._optimizer.step()

    def follow(self, parameters: Named, rates: Callable[[], Mapping[str, float]]) -> None:
        """Go on with these parameters: those that grew keep their state, with zeros for the new rows."""
        if any(self._parameters.get(name) is not parameter for name, parameter in parameters.items()):
            state = self.tensors()
            self._use(parameters, rates())
            self.load(state)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as "parameter/slot" -> tensor."""
        return {
            f"{name}/{slot}": value
            for name, parameter in self._parameters.items()
            for slot, value in self._optimizer.state.get(parameter, {}).items()
            if value is not None
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        for key, value in tensors.items():
            name, _, slot = key.rpartition("/")
            self._optimizer.state[self._parameters[name]][slot] = _grown(value, self._parameters[name])

    def _use(self, parameters: Named, rates: Mapping[str, float]) -> None:
        self._parameters = parameters
        groups: dict[float, list[nn.Parameter]] = {} if parameters else {1.0: []}  # what only counts has nothing to optimize
        for name, parameter in parameters.items():
            groups.setdefault(rates.get(name, 1.0), []).append(parameter)
        self._optimizer = self._factory([{"params": group, "rate": rate} for rate, group in groups.items()], **self._options)


def _grown(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a copy of a state tensor beside its parameter, with zeros for the rows that the parameter has more.

    A step count is a scalar that torch keeps on the CPU: it stays as it is.
    """
    if value.dim() == 0:
        return value.clone()
    grown = torch.zeros_like(parameter)
    grown[: len(value)] = value
    return grown
