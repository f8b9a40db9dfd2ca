"""Checkpoints as those who serve them load them."""

from __future__ import annotations

import gc
import re
from contextlib import closing
from pathlib import Path

from service.checkpointing import load_part
from tests.test_acts import latest
from tests.workshop import Workshop

LOADS = 10_000
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
        for _ in range(LOADS // 10):
            load_part(workshop.checkpoints, version, "model")
        before = taken()
        for _ in range(LOADS):
            load_part(workshop.checkpoints, version, "model")
        assert taken() - before < LOADS * LEAST_LEAK
