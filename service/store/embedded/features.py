"""The features of frozen encoders in SQLite, beside the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.store.embedded.database import Database, sealed
from service.store.embedded.directory import DataDirectory

SCHEMA = "CREATE TABLE IF NOT EXISTS features (seq INTEGER PRIMARY KEY, features BLOB NOT NULL, crc INTEGER);"


class EmbeddedFeatureStore:
    """One SQLite table without fsync per commit: what a power cut takes is worked out again, to the same bits."""

    def __init__(self, directory: DataDirectory) -> None:
        self._database = Database(directory.features, SCHEMA, synchronous="NORMAL", timed=directory.timed)

    def put(self, features: Mapping[int, bytes]) -> None:
        """Insert features. An update that is made again after a crash brings them again."""
        if not features:
            return
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO features VALUES (?1, ?2, crc32(?1, ?2))", features.items())

    def fetch(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the features of these sequence numbers."""
        query = f"SELECT features, {sealed(['seq', 'features'])} FROM features WHERE seq = ?"
        with self._database.read() as connection:
            rows = [(seq, *row) for seq in seqs if (row := connection.execute(query, (seq,)).fetchone()) is not None]
        for seq, _, sound in rows:
            if not sound:
                raise self._database.damaged(f"the features of seq {seq} are not what was written")
        return {seq: features for seq, features, _ in rows}

    def erase(self, seqs: Sequence[int]) -> None:
        """Remove features, also from the write-ahead log."""
        with self._database.write() as connection:
            connection.executemany("DELETE FROM features WHERE seq = ?", ((seq,) for seq in seqs))
        self._database.empty_wal()

    def close(self) -> None:
        """Release what is open."""
        self._database.close()
