"""A single element far from all others.

A clipping method weighs what it cuts by how often it occurs, so one wild value among few has a weight that it would not
have among many, and sets the range: with N(0, 1) and one 40, least squared error keeps the 40 up to N = 400 000, a
percentile of 99.999 up to N = 200 000. One element of a set is left out at either end if

    it lies beyond an empty gap wider than all that remains,   gap > b - a,   [a, b] = the rest, widened to contain 0

Its step would be more than twice that of the others, for a value that was seen once. Of n elements of an exponential
distribution the greatest lies that far off with a probability of about 0.6 / n (the gap has the law of one element, the
rest reaches to ln n), of lighter tails far less often; so below 1000 elements nothing is left out. Values that every
sample has, such as a transformer's massive activations, occur more than once and stay. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.stats.histogram import Histogram

_FEWEST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Inliers:
    """What remains of a histogram without outliers.

    Attributes:
        lo, hi: range of the elements; a bin's edge where an outlier was left out.
        counts: those of the histogram's bins, without the outliers.
    """

    lo: float
    hi: float
    counts: NDArray[np.int64]


def inliers(hist: Histogram) -> Inliers:
    """The elements of ``hist``, which holds some, without an outlier at either end."""
    lo, hi, counts = hist.extremes.lo, hist.extremes.hi, hist.counts
    filled = np.flatnonzero(counts)
    if hist.extremes.usable < _FEWEST or filled.size < 3:
        return Inliers(lo=lo, hi=hi, counts=counts)
    first, last = filled[0], filled[-1]
    edges = hist.edges()
    # The second bin from each end: a range that is certain to hold all elements but the outermost.
    a = float(edges[filled[1]]) if counts[first] == 1 else lo
    b = float(edges[filled[-2] + 1]) if counts[last] == 1 else hi
    rest = max(b, 0.0) - min(a, 0.0)
    below, above = a - lo > rest, hi - b > rest
    if below or above:
        counts = counts.copy()
        counts[[first] * below + [last] * above] = 0
    return Inliers(lo=a if below else lo, hi=b if above else hi, counts=counts)
