"""A data directory with a learner that is stepped by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from service.checkpointing import Shaping, shaping_of
from service.learner import Learner
from service.replay import Records
from service.settings import GateSettings, LearnerSettings, Settings
from service.store import NewEntry
from service.store.embedded import (
    DataDirectory,
    EmbeddedCheckpointStore,
    EmbeddedFeatureStore,
    EmbeddedFeedbackLog,
    EmbeddedPredictionJournal,
)

OPEN = GateSettings(holdout=0.0)

MODEL: dict[str, dict[str, object]] = {
    "input": {"kind": "vector", "length": 2},
    "encoder": {"name": "tabular", "hidden": [4]},
    "head": {"name": "classification"},
}


PICTURES: dict[str, dict[str, object]] = {
    "input": {"kind": "image", "size": 32},
    "encoder": {"name": "torchvision", "backbone": "mobilenet_v3_small", "weights": "none"},
    "head": {"name": "classification", "experts": ["linear", "prototype"]},
}


class Workshop:
    """A data directory with a learner that is stepped by hand."""

    def __init__(
        self,
        folder: Path,
        update_items: int = 4,
        keep: int = 100,
        model: dict[str, dict[str, object]] = MODEL,
        gate: GateSettings = OPEN,
        **learning: object,
    ) -> None:
        self.directory = DataDirectory(folder / "data").create()
        self.log = EmbeddedFeedbackLog(self.directory)
        self.features = EmbeddedFeatureStore(self.directory)
        self.checkpoints = EmbeddedCheckpointStore(self.directory, keep=keep)
        self.gate = gate
        self.shaping: Shaping = shaping_of(
            Settings.model_validate({"model": model, "learning": {"update_items": update_items, **learning}})
        )

    @property
    def records(self) -> Records:
        return Records(
            shaping=self.shaping,
            settings=LearnerSettings(),
            feedback=self.log,
            features=self.features,
            checkpoints=self.checkpoints,
        )

    def send(self, count: int, label: str | None = None) -> None:
        entries = [
            NewEntry(instance=f"[{number}.0, 1.0]".encode(), label=f'"{label or "ab"[number % 2]}"', digest=b"")
            for number in range(count)
        ]
        self.log.append(entries).result(10)

    def learner(self) -> Learner:
        journal = partial(EmbeddedPredictionJournal, self.directory, max_age=60.0, max_bytes=10**8)
        return Learner(self.records, self.gate, journal=journal, attempts=self.directory.suspicion)

    def learn(self) -> None:
        """Learn what waits, one commit after the other: each version has its checkpoint."""
        learner = self.learner()
        while learner.step():
            learner._commits.finish()

    def close(self) -> None:
        self.log.close()
        self.features.close()
        self.checkpoints.close()
