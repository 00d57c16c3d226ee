"""MSE: the range with the least expected squared error of quantization.

    argmin E(lo, hi) = rounding + clipping            over the elements of the histogram, for the real grid

E is that of :mod:`qconvert.calibrate.expected_error`. The search takes its estimate, so that a candidate costs O(1).
Both ends are fractions of the data's range, on a coarse grid that is refined around its best point. The best of each
round and min-max then compete on E itself, so the result is never worse than min-max, save that a single outlier
(:mod:`qconvert.calibrate.outliers`) is left out first. Data of one sign and symmetric grids have one end to search.
Source: Banner et al. 2019, arXiv:1810.05723; the search is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.calibrate.expected_error import ExpectedError, Floats
from qconvert.calibrate.method import METHODS, statistic_as
from qconvert.calibrate.outliers import inliers
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.histogram import Histogram
from qconvert.stats.statistic import Statistic

# Geometric steps find the bulk under an outlier 1000 times as large; even ones are finer where little is cut.
_COARSE = np.unique(np.concatenate([np.geomspace(1e-3, 1.0, 40), np.linspace(0.02, 1.0, 50)]))

# Each round divides the spacing by 8: two bring it from 2 % of the range to 0.03 %, where E is flat.
_ROUNDS, _POINTS = 2, 17


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
        error = ExpectedError(hist, kept)

        def bounds(u: Floats, v: Floats) -> tuple[Floats, Floats]:
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
            best = int(np.argmin(error.estimate(lo, hi, spec)))
            found.append((float(lo[best]), float(hi[best])))
            lower, upper = _around(lower, u[best]), _around(upper, v[best])
        return min(found, key=lambda ends: sum(error.parts(ends[0], ends[1], spec)))


def _around(fractions: Floats, best: float) -> Floats:
    """A finer grid between the neighbours of ``best`` in ``fractions``, ``best`` included."""
    at = int(np.searchsorted(fractions, best))
    left, right = fractions[max(at - 1, 0)], fractions[min(at + 1, fractions.size - 1)]
    return np.unique(np.concatenate([np.linspace(left, right, _POINTS), [best]]))


METHODS.add("mse", Mse())
