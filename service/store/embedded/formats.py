"""Directories of earlier formats: what brings one to the format of today, a step a format."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

FORMAT = 6

SUM = {"crc": "INTEGER"}  # of what is there already nobody knows whether it still is what was written


TREE = {
    "updates": "INTEGER NOT NULL DEFAULT 0",
    "applied_seq": "INTEGER NOT NULL DEFAULT 0",
    "backlog": "TEXT NOT NULL DEFAULT '[]'",
    "act": "INTEGER",
    "weights": "TEXT NOT NULL DEFAULT '{}'",
    "held": "TEXT NOT NULL DEFAULT '[]'",
    "gate": "TEXT",
    "superseded": "INTEGER",
}


def from_4(root: Path) -> None:
    """Add who brought an entry, and what lets versions form a tree. What is there already stays: it may run again."""
    _add_columns(root / "feedback.db", "feedback", {"source": "TEXT", **SUM})
    _add_columns(root / "features.db", "features", SUM)
    _add_columns(root / "predictions.db", "predictions", SUM)
    _add_columns(root / "versions.db", "versions", {**TREE, **SUM})
    classes = []
    if (root / "feedback.db").exists():
        with closing(sqlite3.connect(root / "feedback.db", isolation_level=None)) as log:
            log.execute("DROP INDEX IF EXISTS feedback_key")  # keys are each source's own now
            classes = [seq for (seq,) in log.execute("SELECT seq FROM feedback WHERE kind = 'class'")]
    if (root / "versions.db").exists():
        with closing(sqlite3.connect(root / "versions.db", isolation_level=None)) as versions:
            _make_a_tree(versions, classes)


def _make_a_tree(versions: sqlite3.Connection, classes: Sequence[int]) -> None:
    """Say of the versions, which are one line so far, what a tree needs; those of classes say which they declared."""
    versions.execute("BEGIN IMMEDIATE")
    versions.execute("UPDATE versions SET updates = version, applied_seq = last_seq")
    declared = versions.execute("SELECT version, first_seq, last_seq FROM versions WHERE reason = 'classes'").fetchall()
    for version, first, last in declared:
        steps = [[[seq for seq in classes if first <= seq <= last], []]]
        versions.execute("UPDATE versions SET steps = ? WHERE version = ?", (json.dumps(steps), version))
    versions.execute("COMMIT")


def from_5(root: Path) -> None:
    """Add the table of small parts. Parts of checkpoints that are files stay in their place, and are read there."""
    if (root / "versions.db").exists():
        with closing(sqlite3.connect(root / "versions.db", isolation_level=None)) as versions:
            versions.execute("CREATE TABLE IF NOT EXISTS parts (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL)")


UPGRADES: dict[int, Callable[[Path], None]] = {4: from_4, 5: from_5}
"""By the format that a directory has: what makes it one of the next."""


def _add_columns(path: Path, table: str, columns: Mapping[str, str]) -> None:
    """Add the columns that are not there yet, all or none; nothing happens where there is no such file."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for name, declaration in columns.items():
            if known and name not in known:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {declaration}")
        connection.execute("COMMIT")
