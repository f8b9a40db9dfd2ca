"""Acts of an admin from the command line: appended to the log of a data directory, whether a service works on it or not."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from service.access.audit import AuditLog, local_source
from service.erasure import asked
from service.fates import Fate, fate_of
from service.store import ActKind, CheckpointStore, FeedbackLog, NewEntry, StoreError
from service.store.embedded import DataDirectory, EmbeddedCheckpointStore, EmbeddedFeedbackLog

PAUSE = 0.1  # seconds between two looks at what the learner has made of it


class ActFailed(StoreError):
    """The act could not be carried out."""


def act(data: Path, kind: ActKind, what: Any, *, wait: float) -> str:
    """Append an act, and wait for the learner if there is one; return what came of it, for people. Raises StoreError."""
    directory = DataDirectory(data).open()
    with (
        closing(EmbeddedFeedbackLog(directory)) as log,
        closing(EmbeddedCheckpointStore(directory, keep=2)) as checkpoints,
    ):
        audit, source = AuditLog(directory.audit), local_source()
        told = {} if kind == "forget" else what  # as over HTTP: what is forgotten is named in the log alone
        record = {"source": source, "act": kind, **told}
        audit.append({**record, "event": "asked"})
        (seq,) = log.append([NewEntry(kind=kind, instance=b"", label=json.dumps(what), digest=b"", source=source)]).result()
        led = checkpoints.led()
        fate = _awaited(log, checkpoints, seq, wait if led else 0.0)
        status = "refused" if fate.status == "quarantined" else fate.status
        audit.append({**record, "event": "answered", "status": status, "seq": seq})
    match fate.status:
        case "applied":
            return f"carried out: version {fate.model_version}"
        case "quarantined":
            raise ActFailed(f"not carried out: {fate.reason}")
        case _ if led:
            return f"seq {seq} of the log: the learner is still at it; GET /acts/{seq} says when it is carried out"
        case _:
            return f"seq {seq} of the log: carried out when a service starts on this directory"


def _awaited(log: FeedbackLog, checkpoints: CheckpointStore, seq: int, seconds: float) -> Fate:
    """Return what became of an act, once that is decided, or what is to be said of it after so many seconds."""
    deadline = time.monotonic() + seconds
    while (fate := fate_of(log, checkpoints, log.fetch([seq])[seq])).status == "pending" and time.monotonic() < deadline:
        time.sleep(PAUSE)
    return fate


def to_forget(data: Path, *, seqs: Sequence[int], keys: Sequence[str], source: str | None) -> dict[str, Any]:
    """Return what the act says of what is to be forgotten. Raises StoreError for what is not in the log."""
    with closing(EmbeddedFeedbackLog(DataDirectory(data).open())) as log:
        return asked(log, seqs=seqs, keys=keys, source=source)
