"""What can be wrong with a model's specification or with what it is asked to take."""

import traceback
from pathlib import Path


class ModelError(Exception):
    """Base of every error that `models` raises on purpose."""


class SpecificationError(ModelError):
    """A model, one of its parts or one of their options does not exist or has a wrong value."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class InstanceError(ModelError):
    """An instance that the model's input kind can't take; `pointer` is a JSON Pointer to the part that is to blame."""

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


class Unreadable(InstanceError):
    """A body that is not what its media type says, or a number in it, at `pointer`, that JSON does not have."""


class NotExplainable(ModelError):
    """An input kind without parts, or a head that does not say which number explains it."""


class NotExportable(ModelError):
    """A model that can't be made a program of its own."""


class LabelError(ModelError):
    """A label that the model's head can't take; `pointer` is a JSON Pointer to the part of it that is to blame."""

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


def told(error: Exception) -> str:
    """Say in one line what somebody else's code raised, and where."""
    raised = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}; {Path(raised.filename).name} line {raised.lineno}"
