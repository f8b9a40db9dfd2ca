"""The tree of versions in SQLite: which of them lie on the served line, and what forgetting leaves of the others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from service.store.protocols import Version


def lead_to(connection: sqlite3.Connection, version: Version) -> None:
    """Have the served line end in a version that was just inserted: its ancestors are on the line, no others."""
    if version.parent is None or version.parent == version.version - 1:
        return
    way = []
    ancestor: int | None = version.parent
    while ancestor is not None:
        superseded, parent = connection.execute(
            "SELECT superseded, parent FROM versions WHERE version = ?", (ancestor,)
        ).fetchone()
        if superseded is None:
            break
        way.append(ancestor)
        ancestor = parent
    # Up to here both lines are one; what came after it is left, but for the way to the new end.
    connection.execute(
        "UPDATE versions SET superseded = ? WHERE version > ? AND version < ? AND superseded IS NULL",
        (version.version, -1 if ancestor is None else ancestor, version.version),
    )
    connection.executemany("UPDATE versions SET superseded = NULL WHERE version = ?", ((each,) for each in way))


def scrub(connection: sqlite3.Connection, versions: Collection[int], seqs: Collection[int]) -> None:
    """Take out of rows what they say of forgotten items: the reason of a quarantine may quote a label."""
    for version in versions:
        (text,) = connection.execute("SELECT quarantined FROM versions WHERE version = ?", (version,)).fetchone()
        kept = {seq: "forgotten" if int(seq) in seqs else reason for seq, reason in json.loads(text).items()}
        connection.execute("UPDATE versions SET quarantined = ? WHERE version = ?", (json.dumps(kept), version))
