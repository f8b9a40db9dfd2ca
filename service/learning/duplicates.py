"""Near-duplicates that other sources labelled otherwise, found by SimHash (Charikar 2002): the signs of random projections."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.base import Features, Label

BITS = 64
NEAR = 2  # bits that may differ: an angle of about 6 degrees
REMEMBERED = 256  # items that are looked among, the newest
FADING = 0.99  # per batch, of the mean that features are seen from

Bits = np.ndarray[Any, np.dtype[np.int8]]  # [..., BITS], each 1 or -1


class NearDuplicates:
    """The newest items as 64 bits each, with a hash of the label, and who brought it."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._mean = torch.tensor(known.get("mean", []), dtype=torch.float32)  # [width]
        items = known.get("items", ())
        self._items = deque(((_bits(int(bits, 16)), label, name) for bits, label, name in items), maxlen=REMEMBERED)

    def contrary(self, features: Features, labels: Sequence[Label], names: Sequence[str]) -> list[bool]:
        """Return whether each item is nearly one that another source labelled otherwise, and remember the items.

        Nothing is, where features are no vectors.
        """
        if not isinstance(features, Tensor) or features.dim() != 2 or features.shape[1] < 2:
            return [False] * len(labels)
        hashes = self._hashes(features.float().cpu())
        digests = [hashlib.sha256(json.dumps(label, sort_keys=True).encode()).hexdigest()[:16] for label in labels]
        found = [self._contrary(*each) for each in zip(hashes, digests, names, strict=True)]
        self._items.extend(zip(hashes, digests, names, strict=True))
        return found

    def known(self) -> dict[str, Any]:
        """Return what is known, as it can be taken in again."""
        items = [(f"{_number(bits):016x}", label, name) for bits, label, name in self._items]
        return {"mean": [round(value, 6) for value in self._mean.tolist()], "items": items}

    def _contrary(self, bits: Bits, digest: str, name: str) -> bool:
        if not self._items:
            return False
        differing = (BITS - np.stack([each for each, _, _ in self._items]).astype(np.int32) @ bits) // 2
        near = [item for item, apart in zip(self._items, differing.tolist(), strict=True) if apart <= NEAR]
        return any(label != digest for _, label, other in near if other != name)

    def _hashes(self, features: Tensor) -> list[Bits]:
        """Return the bits of features [batch, width], seen from their running mean: all-positive ones would look alike."""
        centre = features.mean(dim=0)
        known = self._mean.shape == centre.shape
        self._mean = torch.lerp(centre, self._mean, FADING) if known else centre
        signs = (features - self._mean) @ _projection(features.shape[1]) > 0  # [batch, BITS]
        return list(np.where(signs.numpy(), 1, -1).astype(np.int8))


@lru_cache(maxsize=4)
def _projection(width: int) -> Tensor:
    return torch.randn(width, BITS, generator=torch.Generator().manual_seed(width))


def _bits(number: int) -> Bits:
    return np.array([1 if number >> place & 1 else -1 for place in range(BITS)], dtype=np.int8)


def _number(bits: Bits) -> int:
    return sum(1 << place for place, bit in enumerate(bits.tolist()) if bit > 0)
