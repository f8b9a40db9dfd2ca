"""What can be wrong with a model's specification or with what it is asked to take."""


class ModelError(Exception):
    """Base of every error that `models` raises on purpose."""


class SpecificationError(ModelError):
    """A model, one of its parts or one of their options does not exist or has a wrong value."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class InstanceError(ModelError):
    """An instance that the model's input kind can't take."""


class LabelError(ModelError):
    """A label that the model's head can't take."""
