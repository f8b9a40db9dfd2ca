"""What can go wrong in a store. A class's docstring is its message where none is given."""


class StoreError(Exception):
    """The store failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class StoreUnavailable(StoreError):
    """The store can't be read or written at the moment (full, failing or closed)."""


class DataDirectoryError(StoreError):
    """The data directory can't be used."""


class LearnerRunning(StoreError):
    """Another learner works on this data directory."""


class CorruptCheckpoint(StoreError):
    """A part of a checkpoint is missing or does not have the content that was committed."""


class LogBusy(StoreError):
    """More feedback waits to be written than the log takes at once."""


class AppendRefused(StoreError):
    """One item of an append can't be taken, and so none of its items is."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index


class KeyReused(AppendRefused):
    """The key is known with different content."""


class KeyBusy(AppendRefused):
    """Feedback with the same key is still being written."""


class MissingInstance(AppendRefused):
    """The prediction is unknown or has expired, and the key is new."""
