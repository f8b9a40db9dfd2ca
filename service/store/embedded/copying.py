"""Directories that are made as a whole or not at all, and copies of databases that are in use."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from service.store.embedded.database import BUSY_SECONDS, DAMAGED
from service.store.embedded.directory import sync_directory
from service.store.errors import CorruptCheckpoint, DataDirectoryError, StoreUnavailable

UNFINISHED = ".everlearn-unfinished-"
LOCK = "lock"
MOMENT = 60.0  # seconds in which a folder that was made is surely locked
CHUNK = 1024 * 1024


@contextmanager
def made_whole(to: Path, *, last: str) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes `to` in the end: all of it or nothing, whatever is killed and when.

    `last` is the file without which it is not taken for what it is. Raises DataDirectoryError where something is there
    already, StoreUnavailable where it can't be written.
    """
    try:
        if os.path.lexists(to) and (not to.is_dir() or any(path.name != "lost+found" for path in to.iterdir())):
            raise DataDirectoryError(f"{to} is there already, and not empty")
        # What is mounted can't be replaced by a rename, and its parent is on another file system.
        mounted = to.is_mount()
        with _unfinished(to if mounted else to.absolute().parent) as whole:
            yield whole
            sync_directory(whole)
            if mounted:
                _move_up(whole, to, last)
            else:
                whole.rename(to)
            sync_directory(to.absolute().parent)
    except OSError as exc:
        raise StoreUnavailable(f"{to} can't be written: {exc.strerror}") from exc


@contextmanager
def _unfinished(parent: Path) -> Iterator[Path]:
    """Make a folder for what is not whole yet, and remove those that others left when they were killed."""
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.glob(f"{UNFINISHED}*"):
        if _is_abandoned(path):
            _remove(path)
    folder = parent / f"{UNFINISHED}{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    with open(folder / f".{LOCK}", "w") as lock:
        with suppress(OSError):  # a file system without locks: then nothing is taken for abandoned either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under its name only once it is locked: whoever can lock it knows that its maker has ended.
        (folder / f".{LOCK}").rename(folder / LOCK)
        whole = folder / "whole"
        whole.mkdir(mode=0o700)
        try:
            yield whole
        finally:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove an unfinished folder, its lock last: whoever is killed at it leaves one that is seen to be abandoned."""
    for path in (folder / "whole", folder):
        shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Say whether who made the folder has ended: the kernel lets go of a lock with its process."""
    try:
        with open(folder / LOCK, "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # its maker has just begun, or ended before it had anything
        with suppress(OSError):
            return time.time() - folder.stat().st_mtime > MOMENT
        return False
    except OSError:
        return False
    return True


def _move_up(whole: Path, to: Path, last: str) -> None:
    """Move everything into a mounted folder, and what makes it valid at the end."""
    for path in sorted(whole.iterdir(), key=lambda path: path.name == last):
        path.rename(to / path.name)
    sync_directory(to)


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite file as it is at one moment, also while others write; the copy is one file, checked and durable.

    Raises StoreUnavailable, DataDirectoryError where the source is damaged, OSError where the disk is full.
    """
    try:
        with closing(_existing(source)) as old, closing(sqlite3.connect(target, isolation_level=None)) as new:
            new.execute("PRAGMA synchronous = OFF")  # it is synced as a whole below, or thrown away
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")  # one file, whose bytes stay: no log beside it
            found = new.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from exc
        if code in DAMAGED:
            raise DataDirectoryError(f"{source} is damaged ({exc}): put a copy of it back") from exc
        raise StoreUnavailable(f"{source} can't be copied: {exc}") from exc
    if found != "ok":
        raise DataDirectoryError(f"{source} is damaged ({found}): put a copy of it back")
    with open(target, "rb+") as file:
        os.fsync(file.fileno())


def _existing(path: Path) -> sqlite3.Connection:
    """Connect to a database, and make none where there is none."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)


def copy_file(source: BinaryIO, target: Path) -> str:
    """Copy an open file to stable storage and return the SHA-256 of what was read.

    Raises CorruptCheckpoint where it can't be read, OSError where the copy can't be written.
    """
    digest = hashlib.sha256()
    with open(target, "xb") as file:
        while chunk := _read(source):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(CHUNK)
    except OSError as exc:
        raise CorruptCheckpoint(f"{source.name} can't be read: {exc.strerror}") from exc


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
