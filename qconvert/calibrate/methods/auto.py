"""Auto: for each scale the method whose range costs least, clipping weighed more than rounding.

    argmin over minmax, percentile, mse of    rounding + 8 clipping

Both errors are those of :mod:`qconvert.calibrate.expected_error`. They are not worth the same behind the tensor:
rounding errors have no sign in common, so over a reduction of K elements they add up like sqrt(K); what is clipped is
all of one sign and stands in few places, often in the same channels, and adds up like K. With weight 1 the least
squared error wins by definition, and clips nets that cannot afford it: MobileNetV1-0.25 after bias correction has 20.6
dB with mse and 23.0 with minmax. The weight is measured on seven models (docs/decisions/0010). Of equals the first in
the order above is taken.

Before LeakyRelu or PRelu of slope a, errors of negative elements count a**2 (:mod:`qconvert.plan.useful`), and each
range is cut at the lower end where that sum is least: a step that is a third shorter for positive elements is worth
clipping some that the slope makes small. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.calibrate.expected_error import ExpectedError, weights
from qconvert.calibrate.method import ALIKE, METHODS, Seen, statistic_as
from qconvert.calibrate.outliers import inliers
from qconvert.numerics.spec import QuantSpec
from qconvert.plan.model import RangeOption
from qconvert.stats.histogram import Histogram
from qconvert.stats.statistic import Statistic

# What is tried of the part of a range that is below 0, where errors count less there; the whole of it first.
_CUTS = np.linspace(1.0, 0.0, 101)
# Entropy is not among them: it made no difference beyond chance, and takes longer than the others together.
CANDIDATES = ("minmax", "percentile", "mse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Auto:
    """The best of several methods.

    Attributes:
        clipping_weight: how much more a squared error counts that comes from clipping.
    """

    name: str = "auto"
    clipping_weight: float = 8.0

    def needs(self) -> Statistic:
        """A histogram."""
        return Histogram()

    def range(self, statistic: Statistic, spec: QuantSpec) -> tuple[float, float]:
        """The range of the best method."""
        best = self.weigh(statistic, spec)[0]
        return best.lo, best.hi

    def weigh(self, statistic: Statistic, spec: QuantSpec, seen: Seen = ALIKE) -> tuple[RangeOption, ...]:
        """The ranges of all methods, the best one first."""
        hist = statistic_as(Histogram, statistic)
        ranges = {name: METHODS.get(name).range(hist, spec) for name in CANDIDATES}
        if hist.extremes.empty or spec.hi - spec.lo >= hist.bins:
            # Nothing to weigh; or a grid finer than the histogram, for which no method but percentile clips.
            return tuple(RangeOption(method=name, lo=lo, hi=hi) for name, (lo, hi) in ranges.items())
        sums = [(statistic_as(Histogram, part), slope) for part, slope in seen.below]
        error = ExpectedError(hist, inliers(hist), None if seen.alike else weights(hist, seen.useful, sums))
        ranges = {name: seen.cut(lo, hi) for name, (lo, hi) in ranges.items()}
        if seen.below:
            ranges = {name: self._cut(error, lo, hi, spec) for name, (lo, hi) in ranges.items()}
        parts = {name: error.parts(lo, hi, spec) for name, (lo, hi) in ranges.items()}
        costs = {name: rounding + self.clipping_weight * clipping for name, (rounding, clipping) in parts.items()}
        power = error.power or 1.0
        return tuple(
            RangeOption(method=name, lo=ranges[name][0], hi=ranges[name][1], noise=sum(parts[name]) / power)
            for name in sorted(ranges, key=lambda n: costs[n])
        )

    def _cut(self, error: ExpectedError, lo: float, hi: float, spec: QuantSpec) -> tuple[float, float]:
        """The range with the lower end where the weighed error is least."""
        lower = np.minimum(lo, 0.0) * _CUTS
        costs = error.estimate(lower, np.full_like(lower, hi), spec, self.clipping_weight)
        return float(lower[int(np.argmin(costs))]), hi


METHODS.add("auto", Auto())
