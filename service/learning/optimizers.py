"""Optimizers by name, and their state by parameter name: so it is saved without pickle and follows a class that grows.

They are torch's, as functions: with its first optimizer object torch imports its compiler, which takes as long as torch itself
and holds 150 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.optim import adam as torch_adam, adamw as torch_adamw, sgd as torch_sgd

from models.errors import SpecificationError
from models.registry import part

Named = Mapping[str, nn.Parameter]
State = dict[str, Tensor]
"""What an optimizer keeps of a parameter, by the name of the slot."""
Rule = Callable[[Sequence[nn.Parameter], Sequence[State], float, float], None]
"""Moves parameters down their gradients, and their states on, with two factors on the learning rate. States begin empty."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


def sgd(
    *,
    lr: Annotated[PositiveFloat, Field(description="Learning rate.")] = 0.01,
    momentum: Fraction = 0.0,
    nesterov: bool = False,
    dampening: Fraction = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
) -> Rule:
    """Stochastic gradient descent."""

    def step(parameters: Sequence[nn.Parameter], states: Sequence[State], rate: float, scale: float) -> None:
        buffers = [state.get("momentum_buffer") for state in states]
        torch_sgd.sgd(
            list(parameters),
            _gradients(parameters),
            buffers,
            lr=lr * rate * scale,
            momentum=momentum,
            nesterov=nesterov,
            dampening=dampening,
            weight_decay=weight_decay,
            maximize=False,
        )
        for state, buffer in zip(states, buffers, strict=True):
            if buffer is not None:
                state["momentum_buffer"] = buffer

    return step


def adam(
    *,
    lr: Annotated[PositiveFloat, Field(description="Learning rate.")] = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
) -> Rule:
    """Adam (Kingma and Ba 2015)."""
    return _adaptive(torch_adam.adam, lr, betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)


def adamw(
    *,
    lr: Annotated[PositiveFloat, Field(description="Learning rate.")] = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
    amsgrad: bool = False,
) -> Rule:
    """AdamW (Loshchilov and Hutter 2019)."""
    return _adaptive(torch_adamw.adamw, lr, betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)


def _adaptive(function: Callable[..., None], lr: float, betas: tuple[float, float], *, amsgrad: bool, **options: float) -> Rule:
    moments = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else [])]

    def step(parameters: Sequence[nn.Parameter], states: Sequence[State], rate: float, scale: float) -> None:
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state.update({moment: torch.zeros_like(parameter) for moment in moments})
        function(
            list(parameters),
            _gradients(parameters),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if amsgrad else [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=amsgrad,
            beta1=betas[0],
            beta2=betas[1],
            lr=lr * rate * scale,
            maximize=False,
            **options,
        )

    return step


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


OPTIMIZERS: dict[str, Callable[..., Rule]] = {"sgd": sgd, "adam": adam, "adamw": adamw}


def resolve_optimizer(specification: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification with defaults filled in. Raises SpecificationError."""
    _, options = part("learning.optimizer", "name", OPTIMIZERS, specification)
    if options.get("nesterov") and (not options["momentum"] or options["dampening"]):
        raise SpecificationError("learning.optimizer", "Nesterov momentum requires a momentum and no dampening")
    return {"name": specification["name"], **options}


class NamedOptimizer:
    """An optimizer of a model's trainable parameters that keeps its state when one of them grows."""

    def __init__(self, specification: Mapping[str, Any], parameters: Named, rates: Mapping[str, float] | None = None) -> None:
        """Optimize these parameters, each with a factor on its learning rate (1 where none is given)."""
        factory, options = part("learning.optimizer", "name", OPTIMIZERS, specification)
        self._rule = factory(**options)
        self._use(parameters, rates or {})

    @property
    def idle(self) -> bool:
        """Whether the model has no trainable parameters."""
        return not self._parameters

    def step(self, loss: Tensor, scale: float = 1.0) -> None:
        """Take one step down the gradient of a scalar loss, with `scale` times the learning rate."""
        for parameter in self._parameters.values():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        with torch.no_grad():
            for rate, names in self._groups.items():
                moved = {name: self._parameters[name] for name in names if self._parameters[name].grad is not None}
                states = [self._state.setdefault(name, {}) for name in moved]
                self._rule(list(moved.values()), states, rate, scale)

    def follow(self, parameters: Named, rates: Callable[[], Mapping[str, float]]) -> None:
        """Go on with these parameters: those that grew keep their state, with zeros for the new rows."""
        if any(self._parameters.get(name) is not parameter for name, parameter in parameters.items()):
            state = self.tensors()
            self._use(parameters, rates())
            self.load(state)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as "parameter/slot" -> tensor."""
        return {f"{name}/{slot}": value for name in self._parameters for slot, value in self._state.get(name, {}).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state that `tensors` returned."""
        for key, value in tensors.items():
            name, _, slot = key.rpartition("/")
            self._state.setdefault(name, {})[slot] = _grown(value, self._parameters[name])

    def _use(self, parameters: Named, rates: Mapping[str, float]) -> None:
        self._parameters = parameters
        self._state: dict[str, State] = {}
        self._groups: dict[float, list[str]] = {}
        for name in parameters:
            self._groups.setdefault(rates.get(name, 1.0), []).append(name)


def _grown(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a copy of a state tensor beside its parameter, with zeros for the rows that the parameter has more.

    A step count is a scalar that torch keeps on the CPU: it stays as it is.
    """
    if value.dim() == 0:
        return value.clone()
    grown = torch.zeros_like(parameter)
    grown[: len(value)] = value
    return grown
