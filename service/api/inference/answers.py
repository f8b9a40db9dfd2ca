"""How answers become tensors: which tensors a model gives follows from what its head answers in JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.base import Answer
from service.api.inference.instances import SCALARS, Described, Schema, some
from service.api.inference.tensors import BYTES, FIXED, Array, Written, as_document, written

ID = "prediction_id"
NOTHING = {"FP64": np.nan, BYTES: "", "BOOL": False}
"""What stands where an answer says nothing."""


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that the model gives, and what of a prediction goes into it."""

    described: Described
    of: Callable[[Answer], Any]

    def written(self, predictions: Sequence[Answer], *, binary: bool) -> Written:
        """Return the tensor as it stands in a response."""
        return written(self.described.name, self.described.datatype, self._array(predictions), binary=binary)

    def _array(self, predictions: Sequence[Answer]) -> Array:
        """Return the tensor: lists of different lengths are filled up behind their ends."""
        depth = len(self.described.shape) - 1
        values = [self.of(prediction) for prediction in predictions]
        sizes = [len(values), *(_longest(values, level) for level in range(depth))]
        datatype = self.described.datatype
        array: Array = np.full(sizes, NOTHING[datatype], FIXED.get(datatype, object))
        _fill(array, values)
        return array


def outputs_of(answer_type: Any) -> dict[str, Output]:
    """Return the tensors of a head's answers by name, and the prediction's id, which /feedback takes.

    A value is an element; a list a row; probabilities by name are two tensors, `scores` and `scores.names`; all else is JSON.
    """
    outputs = [Output(Described(ID, BYTES, [-1]), lambda prediction: prediction["id"])]
    for name, schema in answer_type.model_json_schema()["properties"].items():
        outputs += _outputs(name, some(schema))
    return {output.described.name: output for output in outputs}


def _outputs(name: str, schema: Schema) -> list[Output]:
    match schema:
        case {"type": "object", "additionalProperties": {"type": "number"}}:
            return [
                Output(Described(name, "FP64", [-1, -1]), lambda prediction: list((prediction.get(name) or {}).values())),
                Output(Described(f"{name}.names", BYTES, [-1, -1]), lambda prediction: list(prediction.get(name) or {})),
            ]
        case _:
            element, depth = schema, 0
            while element.get("type") == "array":
                element, depth = element["items"], depth + 1
            datatype = SCALARS.get(element.get("type", ""))
            if datatype is None:
                return [Output(Described(name, BYTES, [-1]), lambda prediction: as_document(prediction.get(name)))]
            if datatype == "INT64":
                datatype = "FP64"  # which says what is missing
            return [Output(Described(name, datatype, [-1] * (depth + 1)), lambda prediction: prediction.get(name))]


def _longest(values: Sequence[Any], level: int) -> int:
    """Return the length of the longest list so many levels down."""
    if level == 0:
        return max((len(value) for value in values if value is not None), default=0)
    return max((_longest(value, level - 1) for value in values if value is not None), default=0)


def _fill(array: Array, values: Sequence[Any]) -> None:
    for index, value in enumerate(values):
        if isinstance(value, list):
            _fill(array[index], value)
        elif value is not None:
            array[index] = value
