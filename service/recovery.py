"""The newest version's state when a learner starts: from its checkpoint, or where that is damaged, from the log."""

from __future__ import annotations

import logging

from service.checkpointing import files_of, fingerprint, hashes_of, load_state
from service.learning.update import LearningState
from service.replay import Records, ReplayImpossible, rebuild
from service.store import CorruptCheckpoint, Part, Version

log = logging.getLogger(__name__)


def recover(records: Records, latest: Version) -> LearningState:
    """Return the state of the newest version, and mend its checkpoint. Raises CorruptCheckpoint with a way out."""
    try:
        return load_state(records.shaping, records.settings.device, records.checkpoints, latest)
    except CorruptCheckpoint as exc:
        return _mended(records, latest, exc)


def _mended(records: Records, latest: Version, damage: CorruptCheckpoint) -> LearningState:
    """Return the state made again from what is left, and write the checkpoint anew where it is the same to the bit."""
    try:
        state = rebuild(records, latest)
    except ReplayImpossible as exc:
        raise CorruptCheckpoint(f"{damage}; and it can't be made again: {exc}. Restore a backup") from exc
    files: dict[Part, bytes] = {"frozen": state.frozen_bytes(), **files_of(state)}
    if fingerprint(hashes_of(files)) != latest.sha256:
        raise CorruptCheckpoint(
            f"{damage}; made again from the log, version {latest.version} comes out otherwise, as it may on another machine."
            " Put the file back, or restore a backup"
        )
    records.checkpoints.put(files)
    log.warning("learner.mended: from the log: %s", damage, extra={"version": latest.version})
    records.checkpoints.wake()
    return state
