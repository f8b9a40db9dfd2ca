"""The plan of faults that a running service follows: shim.c does what it says, at real system calls."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Self

import pytest

SOURCE = Path(__file__).with_name("shim.c")
EVER = 2**32 - 1
NAME = 56


class Action(IntEnum):
    """What happens at a call."""

    NOTHING = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    KILL_HALF = 3
    """Half of a write reaches the file; another call is left out."""
    FAIL = 4
    HANG = 5


class _Point(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * NAME), ("state", ctypes.c_uint32), ("count", ctypes.c_uint32)]


class _Layout(ctypes.Structure):
    _fields_ = [
        ("directory", ctypes.c_char * 256),
        ("name", ctypes.c_char * NAME),
        ("action", ctypes.c_uint32),
        ("error", ctypes.c_uint32),
        ("everyone", ctypes.c_uint32),
        ("first", ctypes.c_uint32),
        ("last", ctypes.c_uint32),
        ("seen", ctypes.c_uint32),
        ("fired", ctypes.c_uint32),
        ("clock", ctypes.c_int64),
        ("points", _Point * 256),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is to happen, and at which calls."""

    action: Action
    point: str = ""
    """A call by name, "fsync feedback.db-wal"; empty for every one."""
    first: int = 1
    """Which of these calls, counted from when it is armed."""
    times: int = 1
    error: int = 0
    everyone: bool = False
    """A kill takes the whole process group."""

    def __str__(self) -> str:
        what = errno.errorcode[self.error] if self.error else self.action.name.lower()
        whom = " of all" if self.everyone else ""
        return f"{what}{whom} at {self.point or 'any call'} number {self.first}" + (
            f" and {self.times - 1} more" if self.times > 1 else ""
        )


class Plan:
    """A plan in a file; a service started with its environment and `library()` follows it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.path = folder / "plan"
        self.path.write_bytes(bytes(ctypes.sizeof(_Layout)))
        with self.path.open("r+b") as file:
            self._layout = _Layout.from_buffer(mmap.mmap(file.fileno(), 0))
        self._layout.directory = str(data).encode()
        self.environment = {"FAULT_PLAN": str(self.path)}

    def arm(self, fault: Fault) -> Self:
        """Have the fault happen from now on, and no other."""
        plan = self._layout
        self.disarm()
        plan.name, plan.error, plan.everyone = fault.point.encode(), fault.error, fault.everyone
        plan.first, plan.last = fault.first, min(EVER, fault.first + fault.times - 1)
        plan.seen = plan.fired = 0
        plan.action = fault.action
        return self

    def disarm(self) -> None:
        """Let calls pass."""
        self._layout.action = Action.NOTHING

    def fired(self) -> int:
        """Return how many times the fault has happened since it was armed."""
        return int(self._layout.fired)

    def wait(self, seconds: float) -> bool:
        """Wait until the fault has happened; return whether it has."""
        deadline = time.monotonic() + seconds
        while not self._layout.fired and time.monotonic() < deadline:
            time.sleep(0.002)
        return bool(self._layout.fired)

    def counts(self) -> dict[str, int]:
        """Return how many times each point was passed."""
        return {point.name.decode(): point.count for point in self._layout.points if point.state}

    def set_clock(self, ahead: float) -> None:
        """Have the wall clock be this many seconds ahead, or behind."""
        self._layout.clock = int(ahead * 1e9)


@cache
def library() -> str:
    """Compile the shim; return its path."""
    if shutil.which("cc") is None:
        pytest.skip("skipped: needs a C compiler (Debian: apt-get install g++)")
    source = SOURCE.read_bytes()
    built = Path(tempfile.gettempdir()) / f"everlearn-shim-{os.getuid()}-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not built.exists():
        unnamed = built.with_suffix(f".{os.getpid()}")
        command = [
            "cc",
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
            str(unnamed),
            str(SOURCE),
        ]
        subprocess.run([*command, "-ldl"], check=True)
        unnamed.rename(built)
    return str(built)
