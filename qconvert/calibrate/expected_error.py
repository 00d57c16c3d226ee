"""The squared error that a range costs, from a histogram.

    E(lo, hi) = sum_codes sum_{x in cell of c} (x - s c)**2  +  sum_{x < a} (x - a)**2  +  sum_{x > b} (x - b)**2
                rounding                                        clipping

s is the step, [a, b] the reals that the codes reach once the range has been widened to 0 and the zero point rounded.
x is taken as uniform within a histogram bin. With F_j(t) = sum_{x <= t} x**j (prefix sums, and a closed form for the
bin that t cuts) each inner sum costs O(1):

    sum_{u < x <= v} (x - t)**2 = F_2 - 2 t F_1 + t**2 F_0,  F_j = F_j(v) - F_j(u)

Where what reads the tensor has a slope a below 0, as LeakyRelu has, an error there counts a**2; of values that it
cannot tell apart, nothing.

Source: Banner et al. 2019, arXiv:1810.05723 (rounding and clipping error); the sums are arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.outliers import Inliers
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.spec import PerAxis, QuantSpec
from qconvert.stats.histogram import Histogram

Floats = NDArray[np.float64]


class ExpectedError:
    """Squared errors of ranges over the elements of a histogram, and F_0, F_1, F_2 at any point.

    Args:
        hist: the histogram.
        kept: its elements without outliers; the others cost nothing.
        counting: what the square of an error counts in each bin [bins] (:func:`weights`); 1 if not given.
    """

    def __init__(self, hist: Histogram, kept: Inliers, counting: Floats | None = None) -> None:
        # The outermost bins reach beyond the data; their elements do not.
        edges = np.clip(hist.edges(), kept.lo, kept.hi)
        self._left, self._span = edges[:-1], np.diff(edges)
        self._counts = kept.counts.astype(np.float64) if counting is None else kept.counts * counting
        self._width, self._lo_bin = hist.width, hist.lo_bin
        right = edges[1:]
        first = self._counts * (self._left + right) / 2
        second = self._counts * (self._left**2 + self._left * right + right**2) / 3
        self._sums = np.stack([np.concatenate([[0.0], np.cumsum(m)]) for m in (self._counts, first, second)])

    @property
    def power(self) -> float:
        """Sum of the squares of all elements."""
        return float(self._sums[2, -1])

    def estimate(self, lo: Floats, hi: Floats, spec: QuantSpec, clipping_weight: float = 1.0) -> Floats:
        """E of each range, [n] and [n] -> [n], taking n s**2 / 12 for the n elements of all cells but zero's.

        Zero's cell stays exact, since zero is on every grid and ReLU puts half of the data there.
        """
        step, a, b = _grid(lo, hi, spec)
        below, upto = self._at(a), self._at(b)
        u, v = self._at(np.maximum(-step / 2, a)), self._at(np.minimum(step / 2, b))
        others = np.maximum(upto[0] - below[0] - (v[0] - u[0]), 0.0)
        total: Floats = clipping_weight * self._clipped(a, b) + np.maximum(v[2] - u[2], 0.0) + others * step**2 / 12
        return total

    def parts(self, lo: float, hi: float, spec: QuantSpec) -> tuple[float, float]:
        """(rounding, clipping) of one range, exact up to the model of uniform bins."""
        step, a, b = _grid(np.array([lo]), np.array([hi]), spec)
        values = a + step * np.arange(spec.hi - spec.lo + 1)
        upto = np.concatenate([self._at(a), self._at(values[:-1] + step / 2), self._at(b)], axis=1)
        return float(_square(np.diff(upto, axis=1), values).sum()), float(self._clipped(a, b)[0])

    def _clipped(self, a: Floats, b: Floats) -> Floats:
        """What is lost beyond the reals ``a`` [n] and ``b`` [n]."""
        return _square(self._at(a), a) + _square(self._sums[:, -1:] - self._at(b), b)

    def _at(self, t: Floats) -> Floats:
        """[3, n]: F_0, F_1, F_2 at each of ``t`` [n]."""
        index = np.clip(np.floor(t / self._width) - self._lo_bin, 0, self._counts.size - 1).astype(np.intp)
        left, span = self._left[index], self._span[index]
        # All elements of a bin without width lie on its edge.
        part = np.divide(t - left, span, out=(t >= left).astype(np.float64), where=span > 0)
        share = np.clip(part, 0.0, 1.0) * self._counts[index]
        t = np.clip(t, left, left + span)
        inner = np.stack([share, share * (left + t) / 2, share * (left**2 + left * t + t**2) / 3])
        found: Floats = self._sums[:, index] + inner
        return found


def weights(hist: Histogram, useful: tuple[float, float], parts: Sequence[tuple[Histogram, float]] = ()) -> Floats:
    """What the square of an error counts in each bin of ``hist`` [bins].

    Args:
        hist: the sum of ``parts``, if there are any.
        useful: beyond these values it counts nothing.
        parts: histograms, each with the slope a below 0 of what reads its elements: it counts a**2 there, and of
            several parts the mean.
    """
    edges = hist.edges()
    inside = (edges[1:] > useful[0]) & (edges[:-1] < useful[1])
    total, weighed = np.zeros(hist.counts.size), np.zeros(hist.counts.size)
    for part, below in parts:
        left = part.edges()[:-1]
        into = (np.floor(left / hist.width) - hist.lo_bin).astype(np.intp)
        there = (into >= 0) & (into < total.size)  # what is a mask among all elements may not be one among its own
        np.add.at(total, into[there], part.counts[there])
        np.add.at(weighed, into[there], (np.where(left < 0, below**2, 1.0) * part.counts)[there])
    return np.where(inside, np.divide(weighed, total, out=np.ones_like(total), where=total > 0), 0.0)


def _grid(lo: Floats, hi: Floats, spec: QuantSpec) -> tuple[Floats, Floats, Floats]:
    """Step, least and greatest real value of the grids that cover ``lo`` [n] to ``hi`` [n]: three of [n]."""
    params = params_from_range(lo, hi, replace(spec, granularity=PerAxis(axis=0)))
    step, zero = params.scale.astype(np.float64), params.zero_point.astype(np.float64)
    return step, step * (spec.lo - zero), step * (spec.hi - zero)


def _square(moments: Floats, t: Floats) -> Floats:
    """sum (x - t)**2 from the sums of 1, x and x**2 [3, n]; never negative, though the difference is rounded."""
    square: Floats = np.maximum(moments[2] - 2 * t * moments[1] + t**2 * moments[0], 0.0)
    return square
