"""Backups of a data directory in use, and data directories made of them."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from service.store.embedded.checkpoints import release
from service.store.embedded.copying import copy_database, copy_file, made_whole, sha256_of
from service.store.embedded.directory import DataDirectory, check_format, sync_directory, write_durably
from service.store.embedded.formats import FORMAT
from service.store.embedded.parts import inserted_part
from service.store.errors import CorruptCheckpoint, DataDirectoryError, StoreUnavailable
from service.store.protocols import PARTS

MANIFEST = "backup.json"
TRIES = 20  # copies of the versions that a fast learner may make stale before their checkpoints are read


@dataclass(slots=True)
class Backup:
    """What a backup holds, and what making it took."""

    version: int | None = None
    """The newest version, None before the first."""
    log_seq: int = 0
    copied: int = 0
    """Checkpoint files that were copied, and those that share their bytes with another directory by a hard link."""
    linked: int = 0
    damaged: list[int] = field(default_factory=list)
    """Versions whose checkpoint is damaged: replay rebuilds them."""


class _Overtaken(Exception):
    """The learner let go of what the copied versions can't do without."""


def back_up(data: Path, to: Path, *, base: Path | None = None) -> Backup:
    """Copy a data directory while it is served and learned from: all that was acknowledged before, and whole versions.

    What `base`, an earlier backup, has already is linked instead of copied, where both are on one file system. Raises
    DataDirectoryError, CorruptCheckpoint or StoreUnavailable; then nothing is made.
    """
    source = DataDirectory(data).open()
    if to.resolve().is_relative_to(data.resolve()):
        raise DataDirectoryError(f"{to} is inside of the data directory: what takes the one takes the other")
    if base is not None:
        _manifest(base)
    for _ in range(TRIES):
        with suppress(_Overtaken), made_whole(to, last=MANIFEST) as folder:
            return _Copying(source, folder, base).run()
    raise StoreUnavailable(
        "the learner lets go of checkpoints, or forgets, faster than they are copied: raise store.checkpoints"
    )


class _Copying:
    """One try to copy a data directory into a folder."""

    def __init__(self, source: DataDirectory, folder: Path, base: Path | None) -> None:
        self._source = source
        self._target = DataDirectory(folder)
        self._base = base
        self._backup = Backup()
        self._files: dict[str, str] = {}

    def run(self) -> Backup:
        # The versions first. Whatever they name was durable before them: the log that is copied later has all that they
        # learned from, and so have the features. The other way round, a version could know more than the log. Features
        # and journal come after the log, since what is forgotten is erased from the log last: where its copy has a
        # tombstone, theirs have nothing left.
        self._database(self._source.versions, self._target.versions)
        self._target.checkpoints.mkdir()
        if self._target.versions.exists():
            self._checkpoints()
            self._files[self._target.versions.name] = sha256_of(self._target.versions)
        sync_directory(self._target.checkpoints)
        self._database(self._source.log, self._target.log)
        self._database(self._source.features, self._target.features)
        if self._turned():
            raise _Overtaken
        self._database(self._source.journal, self._target.journal)
        if self._source.audit.exists():
            with _opened(self._source.audit) as audit:
                self._files[self._target.audit.name] = copy_file(audit, self._target.audit)
        with closing(sqlite3.connect(self._target.log)) as log:
            self._backup.log_seq = int(log.execute("SELECT coalesce(max(seq), 0) FROM feedback").fetchone()[0])
        self._write_manifest()
        return self._backup

    def _database(self, source: Path, target: Path) -> None:
        if source.exists():
            copy_database(source, target)
            self._files[target.name] = sha256_of(target)
        elif self._source.begun():
            raise DataDirectoryError(f"{source} is not there: put a copy of it back")

    def _checkpoints(self) -> None:
        """Take the parts of every version that has them, newest first: those are what the service goes on from."""
        with closing(sqlite3.connect(self._target.versions, isolation_level=None)) as versions:
            query = f"SELECT version, {', '.join(PARTS)} FROM versions WHERE stored ORDER BY version DESC"
            rows = versions.execute(query).fetchall()
            self._backup.version = rows[0][0] if rows else None
            for version, *parts in rows:
                files = [sha256 for sha256 in parts if not _is_inserted(versions, sha256)]
                if not self._take_version(version, files, needed=version in {0, self._backup.version}):
                    release(versions, [version])

    def _take_version(self, version: int, files: Sequence[str], *, needed: bool) -> bool:
        """Take a version's files; return False where the backup has to do without them."""
        try:
            self._take(files)
        except FileNotFoundError as exc:
            if not self._still_stored(version):
                if needed:
                    raise _Overtaken from exc
                return False
            reason = f"the checkpoint part {Path(exc.filename).stem} is damaged, or not there"
        except CorruptCheckpoint as exc:
            reason = str(exc)
        else:
            return True
        if needed:
            raise CorruptCheckpoint(f"{reason}; `everlearn replay --to {version} --output DIR` makes it again")
        self._backup.damaged.append(version)
        return False

    def _turned(self) -> bool:
        """Say whether the learner went back or forgot since the versions were copied: the log may lack what they learned."""
        last = "SELECT max(act) FROM versions WHERE act IS NOT NULL"
        found = []
        for path in (self._source.versions, self._target.versions):
            if path.exists():
                with closing(sqlite3.connect(path)) as versions:
                    found.append(versions.execute(last).fetchone())
        return len(set(found)) > 1

    def _still_stored(self, version: int) -> bool:
        """Say whether the learner has not let go of a version since the versions were copied."""
        with closing(sqlite3.connect(self._source.versions)) as versions:
            return bool(versions.execute("SELECT stored FROM versions WHERE version = ?", (version,)).fetchone()[0])

    def _take(self, files: Sequence[str]) -> None:
        """Take a version's files. All are opened first: what is open can be read to its end, released or not."""
        with ExitStack() as stack:
            missing = [sha256 for sha256 in files if _name(sha256) not in self._files]
            opened = [(sha256, stack.enter_context(open(self._source.checkpoint(sha256), "rb"))) for sha256 in missing]
            for sha256, file in opened:
                self._take_one(sha256, file)
                self._files[_name(sha256)] = sha256

    def _take_one(self, sha256: str, file: BinaryIO) -> None:
        target = self._target.checkpoint(sha256)
        for folder in (self._base, self._source.root):
            if folder is not None and _link(DataDirectory(folder).checkpoint(sha256), target):
                if sha256_of(target) == sha256:
                    self._backup.linked += 1
                    break
                target.unlink()
        else:
            found = copy_file(file, target)
            if found != sha256:
                target.unlink()
                raise CorruptCheckpoint(f"the checkpoint part {sha256} holds content with SHA-256 {found}")
            self._backup.copied += 1

    def _write_manifest(self) -> None:
        manifest = {
            "format": FORMAT,
            "made_at": time.time(),
            "version": self._backup.version,
            "log_seq": self._backup.log_seq,
            "files": self._files,
        }
        write_durably(self._target.root / MANIFEST, json.dumps(manifest, indent=1).encode())


def restore(backup: Path, to: Path, *, next_seq: int | None = None) -> Backup:
    """Make a data directory of a backup, every file checked. `next_seq` is the number that the next feedback gets.

    Raises DataDirectoryError, CorruptCheckpoint or StoreUnavailable; then nothing is made.
    """
    manifest = _manifest(backup)
    if next_seq is not None and next_seq <= manifest["log_seq"]:
        raise DataDirectoryError(f"the next sequence number must be over {manifest['log_seq']}, the last in the backup")
    with made_whole(to, last=DataDirectory(to).marker.name) as folder:
        target = DataDirectory(folder)
        target.checkpoints.mkdir()
        for name, sha256 in manifest["files"].items():
            _restore_one(backup / name, folder / name, sha256)
        sync_directory(target.checkpoints)
        if next_seq is not None:
            _number_from(target.log, next_seq)
        write_durably(target.marker, json.dumps({"format": manifest["format"]}).encode())
        target.create()  # brings it to today's format
    return Backup(version=manifest["version"], log_seq=manifest["log_seq"], copied=len(manifest["files"]))


def _restore_one(source: Path, target: Path, sha256: str) -> None:
    with _opened(source) as file:
        found = copy_file(file, target)
    if found != sha256:
        raise CorruptCheckpoint(f"{source} is damaged: it holds content with SHA-256 {found}")


def _number_from(log: Path, seq: int) -> None:
    """Have the log number its next entry so, unless it has given higher numbers already."""
    with closing(sqlite3.connect(log)) as connection, connection:
        given = connection.execute("DELETE FROM sqlite_sequence WHERE name = 'feedback' RETURNING seq").fetchone()
        connection.execute("INSERT INTO sqlite_sequence VALUES ('feedback', ?)", (max(seq - 1, *(given or (0,))),))


def _manifest(backup: Path) -> Mapping[str, Any]:
    """Return what a backup says of itself. Raises DataDirectoryError where it is none."""
    path = backup / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        check_format(backup, manifest["format"])
        names = [Path(name) for name in manifest["files"]]
        if any(name.is_absolute() or ".." in name.parts for name in names):
            raise ValueError("a file outside of it")
        return manifest
    except FileNotFoundError as exc:
        raise DataDirectoryError(f"{backup} is not a backup (no {MANIFEST})") from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataDirectoryError(f"{path} can't be read: {exc}") from exc


def _is_inserted(versions: sqlite3.Connection, sha256: str) -> bool:
    """Say whether a part came with the copy of the versions, and whole."""
    part = inserted_part(versions, sha256)
    return part is not None and hashlib.sha256(part).hexdigest() == sha256


def _name(sha256: str) -> str:
    """Return the name of a checkpoint file in the list of a backup's files."""
    root = Path()
    return str(DataDirectory(root).checkpoint(sha256).relative_to(root))


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where that can't be: other file systems, or none that has links."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _opened(path: Path) -> BinaryIO:
    """Open a file to copy. Raises CorruptCheckpoint where that can't be."""
    try:
        return open(path, "rb")
    except OSError as exc:
        raise CorruptCheckpoint(f"{path} can't be read: {exc.strerror}") from exc
