"""A learning state to and from its checkpoint: what learner, replay and engine have to agree on."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.errors import SpecificationError
from models.inputs import InputKind
from models.registry import build_model, resolve, without_weights
from service.learning.optimizers import resolve_optimizer
from service.learning.update import Declaration, Item, LearningState
from service.settings import LearningSettings, Settings
from service.store import (
    CheckpointStore,
    CorruptCheckpoint,
    DataDirectoryError,
    Entry,
    FeatureStore,
    FeedbackLog,
    Part,
    Version,
)

Shaping = dict[str, Any]
"""The settings that shape learning, as the store records them: {"model": ..., "learning": ...}."""

INITIAL, UPDATE, CLASSES = "initial", "update", "classes"
"""Why a version was made: before any entry, of labels, or of classes that were declared."""


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
    if newest is not None and feedback.end() < newest.last_seq:
        raise DataDirectoryError(
            f"the feedback log ends at seq {feedback.end()}, and version {newest.version} contains seq {newest.last_seq}:"
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
    state.load(version.version, {**tensors["frozen"], **tensors["model"]}, tensors["learner"])
    return state


def load_part(checkpoints: CheckpointStore, version: Version, part: Part) -> dict[str, Tensor]:
    """Return a part's tensors, memory-mapped. Raises CorruptCheckpoint."""
    path = checkpoints.path(version.parts[part])
    try:
        return load_file(path)
    except (OSError, RuntimeError, SafetensorError) as exc:  # retired since it was checked
        raise CorruptCheckpoint(f"the checkpoint file {path.name} can't be loaded: {exc}") from exc


def fingerprint(parts: Mapping[Part, str]) -> str:
    """Return the SHA-256 over the parts' own: equal for two versions that are the same to the bit."""
    return hashlib.sha256("\n".join(f"{part} {parts[part]}" for part in sorted(parts)).encode()).hexdigest()


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return what a bit-identical replay depends on beside the log."""
    return {"torch": torch.__version__, "machine": platform.machine(), "device": device, "threads": threads}


def item(kind: InputKind, entry: Entry, *, encoded: Container[int] = ()) -> Item:
    """Make an entry of the log ready to learn from; its instance is left out where it is `encoded`. Raises InstanceError."""
    answer = None if entry.answer is None else json.loads(entry.answer)
    prepared = None if entry.seq in encoded else kind.prepare(kind.load(entry.instance))
    return Item(prepared, json.loads(entry.label), entry.weight, answer, entry.replaces)


def recall_features(state: LearningState, store: FeatureStore, seqs: Iterable[int]) -> None:
    """Have the state know what was said of these items, as far as the store knows it."""
    if state.model.encoder.frozen:
        unknown = [seq for seq in seqs if seq not in state.features]
        for seq, stored in store.fetch(unknown).items():
            state.features[seq] = torch.frombuffer(bytearray(stored), dtype=torch.float32).to(state.model.device)


def declaration(entry: Entry) -> Declaration:
    """Return the class that an entry of the log names."""
    declared = json.loads(entry.label)
    return Declaration(declared["name"], tuple(declared["descriptions"]))


def of_one_kind(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries up to the first of another kind: an update takes labels, or classes."""
    return list(takewhile(lambda entry: entry.kind == entries[0].kind, entries))


def check_features(state: LearningState, store: FeatureStore) -> None:
    """Recall what was said of all that may be rehearsed. Raises DataDirectoryError where some of it is lost."""
    if not state.model.encoder.frozen:
        return
    recall_features(state, store, state.rehearsal.seqs)
    if lost := set(state.rehearsal.seqs) - state.features.keys():
        raise DataDirectoryError(
            f"what the frozen encoder said of seq {min(lost)} and {len(lost) - 1} other items is lost: put features.db back, as"
            " old as the versions are. Worked out anew it would not be the same to the bit, and no replay would be"
        )
