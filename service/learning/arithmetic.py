"""How the processor computes while an update lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SUBNORMAL = 5e-324


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Take numbers below the normal range for zero, in this thread, and go back to how it was.

    Optimizer states and averages fade into that range, where a multiplication costs many times as much. It belongs to an
    update like its randomness does: a replay, a notebook and the learner must get the same bits.
    """
    already = SUBNORMAL * 1.0 == 0.0  # torch can set the mode, and not tell it
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def use_deterministic_torch(threads: int) -> None:
    """Make torch compute the same bits again: fixed threads, deterministic kernels (a warning where there are none)."""
    torch.set_num_threads(threads)
    # `use_deterministic_algorithms` sets the same, and imports torch's compiler to tell it too: nothing is compiled here.
    torch.set_deterministic_debug_mode("warn")
