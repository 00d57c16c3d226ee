"""Percentile: leave out a fixed share of the data, the farthest out.

    r = 1 - p / 100                     share to leave out, N = number of usable elements
    asymmetric   lo, hi                 the innermost bin edges beyond which at most N r / 2 elements lie, at each end
    symmetric    T, [-T, T]             the same for |x| with N r; |x| of bin i < 0 lies in bin -1 - i

The bin of the true quantile is inside, so the edges are exact to one bin. Where a tail is worth less than one element,
only a single outlier is cut (:mod:`qconvert.calibrate.outliers`). Results are clamped into [min x, max x].
Source: Wu et al. 2020, arXiv:2004.09602, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.method import METHODS, statistic_as
from qconvert.calibrate.outliers import inliers
from qconvert.errors import RecipeError
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.histogram import Histogram
from qconvert.stats.statistic import Statistic


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """Keeps ``percentile`` per cent of the data.

    Attributes:
        percentile: in (50, 100]; 99.999 leaves out one element of 100 000, as ONNX Runtime's default does.
    """

    name: str = "percentile"
    percentile: float = 99.999

    def __post_init__(self) -> None:
        if not 50.0 < self.percentile <= 100.0:
            raise RecipeError(
                f"the percentile is the share of data to keep, got {self.percentile}",
                hint="give a number above 50 and up to 100, such as 99.99",
            )

    def needs(self) -> Statistic:
        """A histogram."""
        return Histogram()

    def range(self, statistic: Statistic, spec: QuantSpec) -> tuple[float, float]:
        """The range that holds the given share of the data."""
        hist = statistic_as(Histogram, statistic)
        if hist.extremes.empty:
            return 0.0, 0.0
        kept = inliers(hist)
        lo, hi = kept.lo, kept.hi
        tail = hist.extremes.usable * (1.0 - self.percentile / 100.0)
        if not spec.symmetric:
            tail /= 2.0
        if tail < 1.0:
            return lo, hi
        if spec.symmetric:
            limit = (_last_kept(_folded(hist), tail) + 1) * hist.width
            return max(lo, min(-limit, hi)), min(hi, max(limit, lo))
        top = (hist.lo_bin + _last_kept(hist.counts, tail) + 1) * hist.width
        bottom = (hist.lo_bin + hist.counts.size - 1 - _last_kept(hist.counts[::-1], tail)) * hist.width
        return max(lo, bottom), min(hi, top)


def _last_kept(counts: NDArray[np.int64], tail: float) -> int:
    """Index of the first bin beyond which at most ``tail`` elements lie."""
    beyond = counts.sum() - np.cumsum(counts)
    return int(np.argmax(beyond <= tail))


def _folded(hist: Histogram) -> NDArray[np.int64]:
    """Counts of |x| over bins 0, 1, ... of the same width."""
    index = np.arange(hist.lo_bin, hist.lo_bin + hist.counts.size)
    folded: NDArray[np.int64] = np.zeros(max(-hist.lo_bin, hist.lo_bin + hist.counts.size), np.int64)
    np.add.at(folded, np.where(index < 0, ~index, index), hist.counts)
    return folded


METHODS.add("percentile", Percentile())
