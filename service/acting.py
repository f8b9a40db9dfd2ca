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
from service.fates import fate_of
from service.store import ActKind, NewEntry, StoreError
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
        source = local_source()
        told = {} if kind == "forget" else what  # as over HTTP: what is forgotten is named in the log alone
        AuditLog(directory.audit).append({"source": source, "act": kind, "event": "asked", **told})
        (seq,) = log.append([NewEntry(kind=kind, instance=b"", label=json.dumps(what), digest=b"", source=source)]).result()
        if not checkpoints.led():
            return f"seq {seq} of the log: carried out when a service starts on this directory"
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            fate = fate_of(log, checkpoints, log.fetch([seq])[seq])
            if fate.status == "applied":
                return f"carried out: version {fate.model_version}"
            if fate.status == "quarantined":
                raise ActFailed(f"not carried out: {fate.reason}")
            time.sleep(PAUSE)
        return f"seq {seq} of the log: the learner is still at it; GET /acts/{seq} says when it is carried out"


def to_forget(data: Path, *, seqs: Sequence[int], keys: Sequence[str], source: str | None) -> dict[str, Any]:
    """Return what the act says of what is to be forgotten. Raises StoreError for what is not in the log."""
    with closing(EmbeddedFeedbackLog(DataDirectory(data).open())) as log:
        return asked(log, seqs=seqs, keys=keys, source=source)
