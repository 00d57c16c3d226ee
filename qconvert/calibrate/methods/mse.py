"""MSE: the range with the least expected squared error of quantization.

    E(lo, hi) = sum_codes sum_{x in cell of c} (x - s c)**2  +  sum_{x < a} (x - a)**2  +  sum_{x > b} (x - b)**2

s is the step, [a, b] the reals that the codes reach once the range has been widened to 0 and the zero point rounded.
x is taken as uniform within a histogram bin. With F_j(t) = sum_{x <= t} x**j (prefix sums, and a closed form for the
bin that t cuts) each inner sum costs O(1):

    sum_{u < x <= v} (x - t)**2 = F_2 - 2 t F_1 + t**2 F_0,  F_j = F_j(v) - F_j(u)

The search takes n s**2 / 12 for the n elements of all cells but zero's, so that a candidate costs O(1); zero's cell
stays exact, since zero is on every grid and ReLU puts half of the data there. Both ends are fractions of the data's
range, on a coarse grid that is refined around its best point. The best of each round and min-max then compete on E
itself, so the result is never worse than min-max, save that a single outlier (:mod:`qconvert.calibrate.outliers`) is
left out beforehand. Data of one sign and symmetric grids have one end to search.
Source: Banner et al. 2019, arXiv:1810.05723 (rounding and clipping error); the search is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.method import METHODS, statistic_as
from qconvert.calibrate.outliers import Inliers, inliers
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.spec import PerAxis, QuantSpec
from qconvert.stats.histogram import Histogram
from qconvert.stats.statistic import Statistic

# Geometric steps find the bulk under an outlier 1000 times as large; even ones are finer where little is cut.
_COARSE = np.unique(np.concatenate([np.geomspace(1e-3, 1.0, 40), np.linspace(0.02, 1.0, 50)]))

# Each round divides the spacing by 8: two bring it from 2 % of the range to 0.03 %, where E is flat.
_ROUNDS, _POINTS = 2, 17

_Floats = NDArray[np.float64]


class _Moments:
    """F_0, F_1, F_2 of a histogram at any point, by the uniform model within bins."""

    def __init__(self, hist: Histogram, kept: Inliers) -> None:
        # The outermost bins reach beyond the data; their elements do not.
        edges = np.clip(hist.edges(), kept.lo, kept.hi)
        self.left, self.span = edges[:-1], np.diff(edges)
        self.counts = kept.counts.astype(np.float64)
        self.width, self.lo_bin = hist.width, hist.lo_bin
        right = edges[1:]
        first = self.counts * (self.left + right) / 2
        second = self.counts * (self.left**2 + self.left * right + right**2) / 3
        self.sums = np.stack([np.concatenate([[0.0], np.cumsum(m)]) for m in (self.counts, first, second)])

    def at(self, t: _Floats) -> _Floats:
        """[3, n]: F_0, F_1, F_2 at each of ``t`` [n]."""
        index = np.clip(np.floor(t / self.width) - self.lo_bin, 0, self.counts.size - 1).astype(np.intp)
        left, span = self.left[index], self.span[index]
        # All elements of a bin without width lie on its edge.
        part = np.divide(t - left, span, out=(t >= left).astype(np.float64), where=span > 0)
        share = np.clip(part, 0.0, 1.0) * self.counts[index]
        t = np.clip(t, left, left + span)
        inner = np.stack([share, share * (left + t) / 2, share * (left**2 + left * t + t**2) / 3])
        found: _Floats = self.sums[:, index] + inner
        return found

    def estimate(self, lo: _Floats, hi: _Floats, spec: QuantSpec) -> _Floats:
        """E of each candidate range up to the cells' shape, [n] and [n] -> [n]."""
        step, a, b = _grid(lo, hi, spec)
        below, upto = self.at(a), self.at(b)
        clipped = _square(below, a) + _square(self.sums[:, -1:] - upto, b)
        u, v = self.at(np.maximum(-step / 2, a)), self.at(np.minimum(step / 2, b))
        others = np.maximum(upto[0] - below[0] - (v[0] - u[0]), 0.0)
        total: _Floats = clipped + np.maximum(v[2] - u[2], 0.0) + others * step**2 / 12
        return total

    def error(self, lo: float, hi: float, spec: QuantSpec) -> float:
        """E of one range."""
        step, a, _ = _grid(np.array([lo]), np.array([hi]), spec)
        values = a + step * np.arange(spec.hi - spec.lo + 1)
        # The outermost cells reach to the ends of the data, which makes clipping a part of the same sum.
        inner = self.at(values[:-1] + step / 2)
        upto = np.concatenate([np.zeros((3, 1)), inner, self.sums[:, -1:]], axis=1)
        return float(_square(np.diff(upto, axis=1), values).sum())


def _grid(lo: _Floats, hi: _Floats, spec: QuantSpec) -> tuple[_Floats, _Floats, _Floats]:
    """Step, least and greatest real value of the grids that cover ``lo`` [n] to ``hi`` [n]: three of [n]."""
    params = params_from_range(lo, hi, replace(spec, granularity=PerAxis(axis=0)))
    step, zero = params.scale.astype(np.float64), params.zero_point.astype(np.float64)
    return step, step * (spec.lo - zero), step * (spec.hi - zero)


def _square(moments: _Floats, t: _Floats) -> _Floats:
    """sum (x - t)**2 from the sums of 1, x and x**2 [3, n]; never negative, though the difference is rounded."""
    square: _Floats = np.maximum(moments[2] - 2 * t * moments[1] + t**2 * moments[0], 0.0)
    return square


@dataclass(frozen=True, slots=True, kw_only=True)
class Mse:
    """Least squared error, both ends searched."""

    name: str = "mse"

    def needs(self) -> Statistic:
        """A histogram."""
        return Histogram()

    def range(self, statistic: Statistic, spec: QuantSpec) -> tuple[float, float]:
        """The range with the least expected squared error."""
        hist = statistic_as(Histogram, statistic)
        if hist.extremes.empty:
            return 0.0, 0.0
        kept = inliers(hist)
        least, most = kept.lo, kept.hi
        if spec.hi - spec.lo >= hist.bins:
            # A grid finer than the histogram (16 bits and up): what clipping could gain is less than it can tell.
            return least, most
        largest = max(-least, most)
        moments = _Moments(hist, kept)

        def bounds(u: _Floats, v: _Floats) -> tuple[_Floats, _Floats]:
            """Ranges of the fractions ``u`` and ``v`` of the lower and the upper end."""
            if spec.symmetric:
                u, v = -largest * v, largest * v
            else:
                u, v = least * u, most * v
            return np.clip(u, least, most), np.clip(v, least, most)

        whole = np.ones(1)
        lower = whole if spec.symmetric or least >= 0 else _COARSE
        upper = whole if not spec.symmetric and most <= 0 else _COARSE
        found = [(least, most)]
        for _ in range(_ROUNDS + 1):
            u, v = (m.reshape(-1) for m in np.meshgrid(lower, upper, indexing="ij"))
            lo, hi = bounds(u, v)
            best = int(np.argmin(moments.estimate(lo, hi, spec)))
            found.append((float(lo[best]), float(hi[best])))
            lower, upper = _around(lower, u[best]), _around(upper, v[best])
        return min(found, key=lambda ends: moments.error(ends[0], ends[1], spec))


def _around(fractions: _Floats, best: float) -> _Floats:
    """A finer grid between the neighbours of ``best`` in ``fractions``, ``best`` included."""
    at = int(np.searchsorted(fractions, best))
    left, right = fractions[max(at - 1, 0)], fractions[min(at + 1, fractions.size - 1)]
    return np.unique(np.concatenate([np.linspace(left, right, _POINTS), [best]]))


METHODS.add("mse", Mse())
