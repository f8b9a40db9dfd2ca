"""The embedded store: SQLite and checkpoint files in one directory on one disk; nothing to install."""

from service.store.embedded.backup import Backup, back_up, restore
from service.store.embedded.checkpoints import EmbeddedCheckpointStore
from service.store.embedded.directory import DataDirectory
from service.store.embedded.features import EmbeddedFeatureStore
from service.store.embedded.journal import EmbeddedPredictionJournal
from service.store.embedded.log import EmbeddedFeedbackLog, fork

__all__ = [
    "Backup",
    "DataDirectory",
    "EmbeddedCheckpointStore",
    "EmbeddedFeatureStore",
    "EmbeddedFeedbackLog",
    "EmbeddedPredictionJournal",
    "back_up",
    "fork",
    "restore",
]
