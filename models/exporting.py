"""A model as a program of its own, by torch.export: collated tensors in, the head's answers as tensors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from models.base import OnlineModel
from models.errors import NotExportable
from models.inputs import Batch

TOLERANCE = 1e-5  # of an answer, relative where it is above 1

# What makes a number of Python's of a tensor. In a model that learns no more, it is asked of its own state: how many items
# the neighbours hold, whether all experts know all classes.
ASKING = frozenset((Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.item, Tensor.tolist))


class Program(nn.Module):
    """A model whose counters stand still: what it asked of its tensors on the first batch is what it is told on any other."""

    def __init__(self, model: OnlineModel) -> None:
        super().__init__()
        self.model = model
        self.told: list[Any] | None = None

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the answers as tensors by name."""
        if self.told is None:
            return self._answers(batch)
        with _Telling(self.told):
            return self._answers(batch)

    def asked(self, batch: dict[str, Tensor]) -> list[Any]:
        """Return what a batch makes the model ask of its tensors."""
        listening = _Listening()
        with listening:
            self._answers(batch)
        return listening.answers

    def _answers(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.model.head.as_tensors(self.model(batch))


class _Listening(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Any] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        answer = function(*args, **(kwargs or {}))
        if function in ASKING:
            self.answers.append(answer)
        return answer


class _Telling(TorchFunctionMode):
    def __init__(self, answers: Sequence[Any]) -> None:
        super().__init__()
        self._answers = iter(answers)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in ASKING:
            return next(self._answers)
        if function is torch.cdist:  # which else looks at the number of rows to choose its way
            return torch.cdist(args[0], args[1], compute_mode="use_mm_for_euclid_dist")
        return function(*args, **(kwargs or {}))


def export(model: OnlineModel, prepared: Sequence[Any]) -> ExportedProgram:
    """Return the model as a program {name: tensor} -> {name: tensor} for any number of instances, checked on these.

    Raises NotExportable with the reason in one line.
    """
    model.eval()
    if not model.head.ready:
        raise NotExportable("no class is known yet")
    program, batches = Program(model), _batches(model, prepared)
    sizes = {tuple(tensor.shape for tensor in model.collate([each]).values()) for each in prepared}
    if len(sizes) > 1:
        raise NotExportable(f"instances of the kind {model.input.kind} have no fixed size")
    with torch.no_grad():
        program.told = program.asked(batches[0])
        if any(program.asked(batch) != program.told for batch in batches):
            raise NotExportable("what the model does depends on the instances that are in a batch")
        shapes = {"batch": {name: {0: Dim("batch")} for name in batches[0]}}
        try:
            exported = torch.export.export(program, (batches[0],), dynamic_shapes=shapes, strict=False)
        except Exception as exc:  # what an encoder does may be anything
            raise NotExportable(f"torch.export can't follow the model: {first_line(exc)}") from exc
        run = exported.module()
        check(model, prepared, lambda batch: run(dict(batch)))
    return exported


def check(model: OnlineModel, prepared: Sequence[Any], run: Callable[[Batch], Mapping[str, Tensor]]) -> None:
    """Raise NotExportable where what was exported does not say what the model says."""
    program = Program(model)
    for batch in _batches(model, prepared):
        with torch.no_grad():
            expected = program(batch)
        try:
            found = run(batch)
        except Exception as exc:  # a runtime of somebody else's
            raise NotExportable(f"what was exported does not run: {first_line(exc)}") from exc
        for name, tensor in expected.items():
            if not torch.allclose(found[name].double(), tensor.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                raise NotExportable(f"what was exported has other {name} than the model")


def _batches(model: OnlineModel, prepared: Sequence[Any]) -> list[dict[str, Tensor]]:
    """Return batches of several sizes; the first, which is traced, has neither none nor one, which torch takes for fixed."""
    most = list(prepared) if len(prepared) > 1 else list(prepared) * 2
    return [dict(model.collate(some)) for some in (most[:5], most[-1:], most[::-1])]


def first_line(error: Exception) -> str:
    """Say what somebody else's code raised, without the pages of advice below it."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
