"""The three stores behind small protocols: FeedbackLog, PredictionJournal, CheckpointStore."""

from service.store.errors import (
    CorruptCheckpoint,
    DataDirectoryError,
    KeyBusy,
    KeyReused,
    LearnerRunning,
    LogBusy,
    MissingInstance,
    StoreError,
    StoreUnavailable,
)
from service.store.protocols import (
    CheckpointStore,
    Entry,
    EntryKind,
    FeatureStore,
    FeedbackLog,
    NewEntry,
    Part,
    Prediction,
    PredictionJournal,
    Version,
)

__all__ = [
    "CheckpointStore",
    "CorruptCheckpoint",
    "DataDirectoryError",
    "Entry",
    "EntryKind",
    "FeatureStore",
    "FeedbackLog",
    "KeyBusy",
    "KeyReused",
    "LearnerRunning",
    "LogBusy",
    "MissingInstance",
    "NewEntry",
    "Part",
    "Prediction",
    "PredictionJournal",
    "StoreError",
    "StoreUnavailable",
    "Version",
]
