"""Finding the item that makes updates fail: bisection over what an update takes, then three strikes for a single item."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

STRIKES = 3  # failures of one item on its own before it is blamed: the first may be the machine's


@dataclass(slots=True)
class Suspicion:
    """What past failures say of the items ahead. It survives a crash as plain JSON."""

    limit: int | None = None
    """Items that the next update takes at most; None without suspicion."""
    until: int = 0
    """Last sequence number under suspicion."""
    strikes: int = 0
    """Failures in a row of the one item that is next."""

    def failed(self, last_seq: int, items: int) -> None:
        """An update on `items` items up to `last_seq` failed: one of them is to blame, so try their first half."""
        self.until = last_seq
        self.strikes = self.strikes + 1 if items == 1 else 0
        self.limit = max(1, items // 2)

    def passed(self, last_seq: int) -> None:
        """An update up to `last_seq` was committed: what is to blame is in the rest, or was not the items' fault."""
        self.strikes = 0
        remaining = self.until - last_seq
        self.limit = max(1, remaining // 2) if self.limit is not None and remaining > 0 else None

    @property
    def convicts(self) -> bool:
        """Whether the next item has failed often enough on its own."""
        return self.strikes >= STRIKES

    def dump(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)
