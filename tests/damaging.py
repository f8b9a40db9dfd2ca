"""Parts of checkpoints, damaged or removed where they lie: in a file, or in the database."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from service.store.embedded import DataDirectory


def flip(directory: DataDirectory, sha256: str, bit: int = -8) -> None:
    """Flip a bit of a part, by default one of its last byte."""
    path = directory.checkpoint(sha256)
    content = bytearray(path.read_bytes() if path.exists() else _inserted(directory, sha256))
    content[bit // 8] ^= 1 << bit % 8
    if path.exists():
        path.unlink()  # a copy of its own: the other names of the file keep what they have
        path.write_bytes(content)
    else:
        _execute(directory, "UPDATE parts SET content = ? WHERE sha256 = ?", bytes(content), sha256)


def remove(directory: DataDirectory, sha256: str) -> None:
    """Remove a part, which is there."""
    path = directory.checkpoint(sha256)
    if path.exists():
        path.unlink()
    else:
        assert _execute(directory, "DELETE FROM parts WHERE sha256 = ? RETURNING 1", sha256), "it is not there"


def _inserted(directory: DataDirectory, sha256: str) -> bytes:
    ((content,),) = _execute(directory, "SELECT content FROM parts WHERE sha256 = ?", sha256)
    return bytes(content)


def _execute(directory: DataDirectory, statement: str, *values: object) -> list[tuple[bytes, ...]]:
    with closing(sqlite3.connect(directory.versions)) as versions, versions:
        return versions.execute(statement, values).fetchall()
