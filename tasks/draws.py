"""Stateless random numbers: the nth of a key is the same on any machine, in any order, in any block.

Knows SplitMix64, not what is drawn with it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.uint64]
    Fractions = NDArray[np.float64]


def draw_key(*parts: object) -> int:
    """Return a 64-bit number that is the same for the same parts on any machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest())


def draws(key: int, numbers: Numbers) -> Numbers:
    """Return a random 64-bit number for each of `numbers`: SplitMix64, which computes its nth number directly."""
    import numpy as np

    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def fractions(drawn: Numbers) -> Fractions:
    """Return draws as numbers from 0 to below 1."""
    import numpy as np

    return (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53
