from __future__ import annotations

import errno
import mmap
from typing import Any

import pytest

from service.memory import HUGE, memory


class Refusing(mmap.mmap):
    """Memory of a kernel without huge pages."""

    def madvise(self, *_: Any) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize("size", [0, 1, HUGE, HUGE + 1])
def test_memory_is_zero_and_can_be_written_to(size: int) -> None:
    taken = memory(size)
    assert taken[:] == bytes(size)
    taken[:] = b"x" * size
    assert taken[:] == b"x" * size


def test_a_kernel_without_huge_pages_gives_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "mmap", Refusing)
    assert len(memory(HUGE)) == HUGE


def test_a_lack_of_memory_is_told_as_one() -> None:
    with pytest.raises(MemoryError):
        memory(2**62)
