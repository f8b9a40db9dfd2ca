"""The features of frozen encoders in SQLite, beside the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.store.embedded.database import Database
from service.store.embedded.directory import DataDirectory

SCHEMA = "CREATE TABLE IF NOT EXISTS features (seq INTEGER PRIMARY KEY, features BLOB NOT NULL);"


class EmbeddedFeatureStore:
    """One SQLite table."""

    def __init__(self, directory: DataDirectory) -> None:
        self._database = Database(directory.features, SCHEMA, synchronous="FULL")

    def put(self, features: Mapping[int, bytes]) -> None:
        """Insert features. An update that is made again after a crash, maybe of other items, brings its own."""
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", features.items())

    def fetch(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the features of these sequence numbers."""
        query = "SELECT features FROM features WHERE seq = ?"
        with self._database.read() as connection:
            rows = ((seq, connection.execute(query, (seq,)).fetchone()) for seq in seqs)
            return {seq: row[0] for seq, row in rows if row is not None}

    def close(self) -> None:
        """Release what is open."""
        self._database.close()
