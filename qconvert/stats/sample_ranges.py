"""The range of each sample's tensor, for statistics that average over samples.

A sample has two ranges: that of its near elements, and that of all its finite elements that are no sentinels. They
differ where elements are as large as masks (:mod:`qconvert.stats.minmax`); which of the two counts is known at the end
only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qconvert.stats.minmax import MinMax, Span, is_near, span_of


def take_ranges(rows: NDArray[np.float32], extremes: MinMax) -> NDArray[np.float32]:
    """Ranges of ``rows`` [n, elements] -> [n, 4]: near lo, near hi, all lo, all hi; +inf and -inf of no elements.

    ``extremes`` takes in the rows too.
    """
    n, size = rows.shape
    if rows.size == 0:
        return np.tile(np.array([np.inf, -np.inf, np.inf, -np.inf], np.float32), (n, 1))
    # Adding 0.0 turns -0.0 into 0.0: which zero min() returns depends on the order of the elements.
    lo, hi = rows.min(axis=1) + np.float32(0), rows.max(axis=1) + np.float32(0)
    least, most = float(lo.min()), float(hi.max())
    if is_near(least, most):
        extremes.near += Span(least, most, n * size)
        return np.stack([lo, hi, lo, hi], axis=1)
    return np.stack([_sifted(row, extremes) for row in rows])


def _sifted(row: NDArray[np.float32], extremes: MinMax) -> NDArray[np.float32]:
    """Ranges [4] of ``row`` [elements], which may hold anything."""
    near, far = (span_of(part) for part in extremes.sift(row))
    both = near + far
    return np.array([near.lo, near.hi, both.lo, both.hi], np.float32)
