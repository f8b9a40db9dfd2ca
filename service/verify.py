"""What a data directory proves of itself: versions replayed, and every feedback item learned from once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from safetensors.torch import load
from torch import Tensor

from service.checkpointing import load_part
from service.reading import reading
from service.replay import Replayed, ReplayImpossible, ascending, recompute, replay
from service.store import CheckpointStore, CorruptCheckpoint, Part, StoreUnavailable, Version
from service.store.embedded import DataDirectory
from service.store.embedded.directory import write_durably

MOST_NAMED = 3  # tensors of a part that differ
console = Console(stderr=True, highlight=False, soft_wrap=True)


def verify_versions(data: Path) -> bool:
    """Recompute every version, show progress, and say whether all are identical. Raises StoreError."""
    unknown = 0
    with reading(data, 0) as (records, first), _progress() as (progress, bar):
        newest = records.checkpoints.latest() or first
        progress.update(bar, total=newest.version)
        try:
            for replayed in replay(replace(records, features=None)):  # what a frozen encoder said is proved too
                if replayed.identical is False:
                    console.print(f"everlearn: {told(records.checkpoints, replayed)}", markup=False)
                    return False
                unknown += replayed.identical is None
                progress.update(bar, completed=replayed.version.version)
        except ReplayImpossible as exc:
            console.print(f"everlearn: {exc}", markup=False)
            return False
    known = f"{newest.version - unknown} versions replayed, every one bit-identical"
    left = f"; {unknown} that the served line has left learned from what was forgotten since" if unknown else ""
    console.print(f"everlearn: {known}{left}")
    return True


def rebuild_version(data: Path, number: int, output: Path | None) -> bool:
    """Recompute one version, say whether it is identical, and write its files to a folder. Raises StoreError."""
    with reading(data, number) as (records, version):
        with _progress() as (progress, bar):
            replayed = recompute(records, version, passed=lambda done, of: progress.update(bar, completed=done, total=of))
        if replayed.identical:
            console.print(f"everlearn: version {number}, made anew, is bit-identical to what was committed: {version.sha256}")
        else:
            console.print(f"everlearn: {told(records.checkpoints, replayed)}", markup=False)
    if output is not None:
        _write(replayed.files, output)
    return bool(replayed.identical)


def _write(files: Mapping[Part, bytes], output: Path) -> None:
    """Write files under the names that they have in a data directory, so that they can be put back."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreUnavailable(f"{output} can't be made: {exc.strerror}") from exc
    for part, content in files.items():
        path = output / DataDirectory(output).checkpoint(hashlib.sha256(content).hexdigest()).name
        write_durably(path, content)
        console.print(f"everlearn: {part:7} {path}")


def told(checkpoints: CheckpointStore, replayed: Replayed) -> str:
    """Say where a version differs from its replay, and where both were made if that is not the same."""
    version = replayed.version
    parts = [_difference(checkpoints, version, part, content) for part, content in replayed.files.items()]
    where = ", and ".join(filter(None, parts)) or "its row, which names another hash than that of its files"
    took = "no feedback" if version.last_seq < version.first_seq else f"seq {version.first_seq}..{version.last_seq}"
    text = f"version {version.version} differs from its replay in {where}; it took {took}"
    was, is_ = version.environment, replayed.environment
    changed = [f"{name} was {was.get(name)} and is {is_[name]}" for name in is_ if was.get(name) != is_[name]]
    return f"{text}; the environment differs: {', '.join(changed)}" if changed else text


def _difference(checkpoints: CheckpointStore, version: Version, part: Part, content: bytes) -> str:
    """Say which tensors of a part differ, as far as its checkpoint is there; nothing where none does."""
    if hashlib.sha256(content).hexdigest() == version.parts[part]:
        return ""
    if not version.stored:
        return f"the {part} file"
    try:
        committed, recomputed = load_part(checkpoints, version, part), load(content)
    except CorruptCheckpoint:
        return f"the {part} file, which is damaged"
    names = sorted(
        name
        for name in committed.keys() | recomputed.keys()
        if name not in committed or name not in recomputed or not _equal(committed[name], recomputed[name])
    )
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"the {part} file ({', '.join(names[:MOST_NAMED])}{more})"


def _equal(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors are the same to the bit: NaN is what it is."""
    return one.dtype == other.dtype and one.shape == other.shape and bool((_bits(one) == _bits(other)).all())


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def consumed(checkpoints: CheckpointStore) -> Counter[int]:
    """Return how many times the served line took each sequence number: learned it as new, held it out or quarantined it.

    What was released from quarantine counts as learned.
    """
    counts: Counter[int] = Counter()
    quarantined: Counter[int] = Counter()
    for version in ascending(checkpoints, after=-1):
        if version.superseded is not None:
            continue
        counts.update(chain.from_iterable(new for new, _ in version.steps))
        counts.update(version.held)
        quarantined.update(version.quarantined.keys())
    return counts + Counter({seq: times for seq, times in quarantined.items() if seq not in counts})


@contextmanager
def _progress() -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TextColumn("versions"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress, progress.add_task("replay", total=None)
