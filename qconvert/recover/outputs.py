"""How outputs of two models are compared on a few samples: even samples of large arrays, and which feeds come first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.session import Feed
from qconvert.stats.sampling import stride

# Of an output, elements that are compared, and kept for each sample.
_ELEMENTS = 1 << 16


def part(array: NDArray[np.generic]) -> NDArray[np.float32]:
    """The elements of an output that are compared, flat."""
    flat = np.asarray(array, np.float32).reshape(-1)
    return np.nan_to_num(flat[:: stride(flat.size, _ELEMENTS)], posinf=0.0, neginf=0.0)


def energy(array: NDArray[np.float32]) -> float:
    """Sum of squares."""
    return float(np.square(array, dtype=np.float64).sum())


def mixed(feeds: Sequence[Feed]) -> list[Feed]:
    """``feeds`` in an order in which the first few are from all over: data come sorted by class as often as not.

    The order is that of reversed bits: 0, 4, 2, 6, 1, 5, 3, 7.
    """
    bits = (len(feeds) - 1).bit_length()
    return [feeds[i] for i in sorted(range(len(feeds)), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))]
