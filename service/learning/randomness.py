"""Counted randomness: every random choice in learning is keyed by (seed, version), never drawn from global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream of choices is for: streams of one version are independent."""

    REHEARSE = 0
    REMEMBER = 1
    TORCH = 2


def choices_for(seed: int, version: int, purpose: Purpose) -> np.random.Generator:
    """Return the generator of a version's choices: Philox, a counter-based generator (Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(key=[seed, version], counter=[0, 0, 0, purpose]))


@contextmanager
def torch_randomness_for(seed: int, version: int) -> Iterator[None]:
    """Key torch's global generators, which dropout draws from, and put them back afterwards."""
    # A process that has not used CUDA has no CUDA randomness to key, and asking for it would set CUDA up.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    devices = range(torch.cuda.device_count()) if used else ()
    with torch.random.fork_rng(devices):
        # Not torch.manual_seed: it looks for every kind of accelerator, which takes longer than a small update.
        keyed = int(choices_for(seed, version, Purpose.TORCH).integers(2**63))
        torch.default_generator.manual_seed(keyed)
        if devices:
            torch.cuda.manual_seed_all(keyed)
        yield
