"""What a data directory proves of itself: every version replayed, and every feedback item learned from once."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.checkpointing import CLASSES
from service.replay import ReplayImpossible, ascending, replay
from service.settings import LearnerSettings
from service.store import CheckpointStore, FeedbackLog, StoreError
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog


def verify_versions(data: Path) -> bool:
    """Recompute every version, show progress, and say whether all are identical. Raises StoreError."""
    directory = DataDirectory(data).open()
    feedback, checkpoints = EmbeddedFeedbackLog(directory), EmbeddedCheckpointStore(directory, keep=2)
    try:
        return _verify(feedback, checkpoints)
    except ReplayImpossible as exc:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"everlearn: {exc}")
        return False
    finally:
        feedback.close()
        checkpoints.close()


def consumed(checkpoints: CheckpointStore) -> Counter[int]:
    """Return how many times each sequence number was learned from as new, or quarantined, by the recorded updates."""
    counts: Counter[int] = Counter()
    for version in ascending(checkpoints, after=-1):
        if version.reason == CLASSES:
            counts.update(range(version.first_seq, version.last_seq + 1))
        counts.update(chain.from_iterable(new for new, _ in version.steps))
        counts.update(version.quarantined.keys())
    return counts


def _verify(feedback: FeedbackLog, checkpoints: CheckpointStore) -> bool:
    latest, shaping, first = checkpoints.latest(), checkpoints.shaping(), checkpoints.get(0)
    if latest is None or shaping is None or first is None:
        raise StoreError("there is no version yet")
    console = Console(stderr=True, highlight=False)
    settings = LearnerSettings(device=first.environment["device"], threads=first.environment["threads"])
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TextColumn("versions"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("replay", total=latest.version)
        for replayed in replay(shaping, settings, feedback, checkpoints):
            version = replayed.version
            if not replayed.identical:
                reason = f" (environment differs: made in {version.environment})" if replayed.environment_differs else ""
                console.print(f"everlearn: version {version.version} differs from its replay{reason}", soft_wrap=True)
                return False
            progress.update(bar, completed=version.version)
    console.print(f"everlearn: {latest.version} versions replayed, every one bit-identical")
    return True
