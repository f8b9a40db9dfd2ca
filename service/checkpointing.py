"""A learning state to and from its checkpoint: what learner, replay and engine have to agree on."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic_core import from_json
from torch import Tensor

from models.errors import SpecificationError
from models.inputs import InputKind
from models.registry import build_model, resolve, without_weights
from service.learning.optimizers import resolve_optimizer
from service.learning.tensorfile import unpack
from service.learning.update import Declaration, Item, LearningState
from service.settings import LearningSettings, Settings
from service.store import (
    CheckpointStore,
    CorruptCheckpoint,
    DataDirectoryError,
    Entry,
    FeedbackLog,
    Part,
    Version,
)

Shaping = dict[str, Any]
"""The settings that shape learning, as the store records them: {"model": ..., "learning": ...}."""

Said = Callable[[Sequence[int]], Mapping[int, bytes]]
"""Returns what a frozen encoder says of entries, by sequence number; what is not known is absent."""


class ShapingDiffers(Exception):
    """The data directory was made with other settings that shape learning."""


def shaping_of(settings: Settings) -> Shaping:
    """Return the settings that shape learning, every default filled in. Raises SpecificationError."""
    learning = settings.learning.model_dump()
    learning["optimizer"] = resolve_optimizer(settings.learning.optimizer)
    shaping: Shaping = json.loads(json.dumps({"model": resolve(settings.model), "learning": learning}))
    return shaping


def check_shaping(recorded: Shaping, given: Shaping) -> None:
    """Raise ShapingDiffers that names every setting that differs."""
    old, new = _flat(recorded), _flat(given)
    differences = [
        f"{name} was {json.dumps(old.get(name))} and is now {json.dumps(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if differences:
        raise ShapingDiffers(
            f"the data directory was made with other settings: {'; '.join(differences)}."
            " Put them back, or name another data directory with --data"
        )


def check_log(feedback: FeedbackLog, checkpoints: CheckpointStore) -> None:
    """Raise DataDirectoryError where the log ends before what the newest version has learned from."""
    newest = checkpoints.latest()
    if newest is not None and feedback.end() < newest.applied_seq:
        raise DataDirectoryError(
            f"the feedback log ends at seq {feedback.end()}, and version {newest.version} contains seq {newest.applied_seq}:"
            " the log is lost or older than the versions. Put it back; new feedback would get numbers that were given before"
        )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part, child in value.items() for key, leaf in _flat(child, f"{name}.{part}".strip(".")).items()}


def available(field: str, device: str) -> str:
    """Return the device. Raises SpecificationError where this machine does not have it."""
    count = torch.cuda.device_count()
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        raise SpecificationError(field, f"{device!r} is not there: torch {torch.__version__} sees {count} CUDA devices")
    return device


def first_state(shaping: Shaping, device: str) -> LearningState:
    """Build the state of version 0, initial weights included. Raises SpecificationError."""
    learning = LearningSettings(**shaping["learning"])
    return LearningState(build_model(shaping["model"], seed=learning.seed).to(device), learning)


def load_state(shaping: Shaping, device: str, checkpoints: CheckpointStore, version: Version) -> LearningState:
    """Build the state of a version from its checkpoint. Raises CorruptCheckpoint."""
    learning = LearningSettings(**shaping["learning"])
    state = LearningState(build_model(without_weights(shaping["model"])).to(device), learning)
    tensors = {part: load_part(checkpoints, version, part) for part in version.parts}
    state.load(version.updates, {**tensors["frozen"], **tensors["model"]}, tensors["learner"])
    return state


def load_part(checkpoints: CheckpointStore, version: Version, part: Part) -> dict[str, Tensor]:
    """Return a part's tensors; those that no update changes are memory-mapped. Raises CorruptCheckpoint."""
    sha256 = version.parts[part]
    try:
        return unpack(checkpoints.mapped(sha256) if part == "frozen" else checkpoints.read(sha256))
    except ValueError as exc:
        raise CorruptCheckpoint(f"the checkpoint part {sha256} can't be loaded: {exc}") from exc


def files_of(state: LearningState) -> dict[Part, bytes]:
    """Return the files of a checkpoint that updates change."""
    return {"model": state.model_bytes(), "learner": state.learner_bytes()}


def hashes_of(files: Mapping[Part, bytes]) -> dict[Part, str]:
    """Return the SHA-256 of each file."""
    return {part: hashlib.sha256(data).hexdigest() for part, data in files.items()}


def fingerprint(parts: Mapping[Part, str]) -> str:
    """Return the SHA-256 over the parts' own: equal for two versions that are the same to the bit."""
    return hashlib.sha256("\n".join(f"{part} {parts[part]}" for part in sorted(parts)).encode()).hexdigest()


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return what a bit-identical replay depends on beside the log."""
    here = {"machine": platform.machine(), "processor": _processor()}
    return {"torch": torch.__version__, **here, "device": device, "threads": threads}


def _processor() -> str:
    """Return which kind of processor this is: sums come out otherwise where the arithmetic libraries choose other code."""
    named = r"^(vendor_id|cpu family|model|CPU implementer|CPU part)\s*: (.+)$"  # of Intel and AMD, and of ARM
    try:
        told = dict(re.findall(named, Path("/proc/cpuinfo").read_text(), re.M))
    except OSError:  # no Linux
        told = {"name": platform.processor()}
    return " ".join([*told.values(), torch.backends.cpu.get_cpu_capability()])


def item(kind: InputKind, entry: Entry, *, encoded: Container[int] = ()) -> Item:
    """Make an entry of the log ready to learn from; its instance is left out where it is `encoded`. Raises InstanceError."""
    answer = None if entry.answer is None else from_json(entry.answer)
    prepared = None if entry.seq in encoded else kind.prepare(kind.load(entry.instance))
    return Item(prepared, from_json(entry.label), entry.weight, answer, entry.replaces)


def items_of(kind: InputKind, entries: Mapping[int, Entry], *, encoded: Container[int] = ()) -> dict[int, Item]:
    """Make entries ready, by sequence number; see `item`."""
    return {seq: item(kind, entry, encoded=encoded) for seq, entry in entries.items()}


def recall_features(state: LearningState, said: Said, seqs: Iterable[int]) -> None:
    """Spare the state the work of what a frozen encoder says of these items, as far as it is known."""
    if state.model.encoder.frozen:
        unknown = [seq for seq in seqs if seq not in state.features]
        for seq, stored in said(unknown).items():
            state.features[seq] = torch.frombuffer(bytearray(stored), dtype=torch.float32).to(state.model.device)


def declaration(entry: Entry) -> Declaration:
    """Return the class that an entry of the log names."""
    declared = json.loads(entry.label)
    return Declaration(declared["name"], tuple(declared["descriptions"]))
