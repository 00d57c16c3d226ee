"""Auto: for each scale the method whose range costs least, clipping weighed more than rounding.

    argmin over minmax, percentile, mse of    rounding + 8 clipping

Both errors are those of :mod:`qconvert.calibrate.expected_error`. They are not worth the same behind the tensor:
rounding errors have no sign in common, so over a reduction of K elements they add up like sqrt(K); what is clipped is
all of one sign and stands in few places, often in the same channels, and adds up like K. With weight 1 the least
squared error wins by definition, and clips nets that cannot afford it: MobileNetV1-0.25 after bias correction has 20.6
dB with mse and 23.0 with minmax. The weight is measured on seven models (docs/decisions/0010). Of equals the first in
the order above is taken. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.calibrate.expected_error import ExpectedError
from qconvert.calibrate.method import METHODS, statistic_as
from qconvert.calibrate.outliers import inliers
from qconvert.numerics.spec import QuantSpec
from qconvert.plan.model import RangeOption
from qconvert.stats.histogram import Histogram
from qconvert.stats.statistic import Statistic

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

    def weigh(self, statistic: Statistic, spec: QuantSpec) -> tuple[RangeOption, ...]:
        """The ranges of all methods, the best one first."""
        hist = statistic_as(Histogram, statistic)
        ranges = {name: METHODS.get(name).range(hist, spec) for name in CANDIDATES}
        if hist.extremes.empty or spec.hi - spec.lo >= hist.bins:
            # Nothing to weigh; or a grid finer than the histogram, for which no method but percentile clips.
            return tuple(RangeOption(method=name, lo=lo, hi=hi) for name, (lo, hi) in ranges.items())
        error = ExpectedError(hist, inliers(hist))
        parts = {name: error.parts(lo, hi, spec) for name, (lo, hi) in ranges.items()}
        costs = {name: rounding + self.clipping_weight * clipping for name, (rounding, clipping) in parts.items()}
        power = error.power or 1.0
        return tuple(
            RangeOption(method=name, lo=ranges[name][0], hi=ranges[name][1], noise=sum(parts[name]) / power)
            for name in sorted(ranges, key=lambda n: costs[n])
        )


METHODS.add("auto", Auto())
