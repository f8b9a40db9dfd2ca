"""Which checkpoints are kept: all of the newest, and fewer the older they get."""

from __future__ import annotations


def is_kept(version: int, *, newest: int, keep: int) -> bool:
    """Say whether a version keeps its checkpoint: the newest `keep` do, then one for each doubling of the age.

    One of age a, in versions, stays while it is a multiple of the largest power of two up to a. So one that has gone would
    not be wanted later, and to rebuild a version of age a, fewer than 2a are made anew from the nearest one that is kept.
    """
    age = newest - version
    return age < keep or version % (1 << (age.bit_length() - 1)) == 0
