"""Checkpoints as those who serve them load them."""

from __future__ import annotations

import gc
import re
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from service.checkpointing import load_part
from tests.test_acts import latest
from tests.workshop import Workshop

LOADS = 5_000
LEAST_LEAK = 300  # bytes a time, that are found


def taken() -> int:
    """Return the memory that is this process's own, in bytes."""
    gc.collect()
    (kilobytes,) = re.findall(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(kilobytes) * 1024


def test_to_load_versions_again_and_again_takes_no_more_memory(tmp_path: Path) -> None:
    with closing(Workshop(tmp_path)) as workshop:
        workshop.send(4)
        workshop.learn()
        version = latest(workshop)
        memory: list[int] = []
        for _ in range(3):
            for _ in range(LOADS):
                load_part(workshop.checkpoints, version, "model")
            memory.append(taken())
        # What is lost is lost each time; the allocator may take some megabytes once.
        assert min(after - before for before, after in pairwise(memory)) < LOADS * LEAST_LEAK
