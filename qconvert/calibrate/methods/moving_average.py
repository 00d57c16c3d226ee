"""Moving average: an exponential moving average of each sample's range.

    lo_1 = min x_1,   lo_i = lo_(i-1) + c (min x_i - lo_(i-1)),   c = 0.01;   the same for hi with max

The usual order, that of arrival, would make the result depend on how the data was shuffled or split; here samples come
in the order of a key that is mixed from their ranges (:mod:`qconvert.stats.moving_range`). With few samples the first
one weighs most, 0.99**(n - 1). Source: Jacob et al. 2018, arXiv:1712.05877, section 3.1; the constant is PyTorch's
MovingAverageMinMaxObserver and of ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.calibrate.method import METHODS, statistic_as
from qconvert.errors import RecipeError
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.moving_range import MovingRange
from qconvert.stats.statistic import Statistic

# With a lower constant, samples that the statistic has dropped would still weigh something.
_LEAST_CONSTANT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingAverage:
    """The moving average of the range of a sample.

    Attributes:
        constant: weight of a new sample, in [0.01, 1].
    """

    name: str = "moving-average"
    constant: float = _LEAST_CONSTANT

    def __post_init__(self) -> None:
        if not _LEAST_CONSTANT <= self.constant <= 1.0:
            raise RecipeError(
                f"the constant of a moving average is the weight of a new sample, got {self.constant}",
                hint=f"give a number from {_LEAST_CONSTANT} to 1",
            )

    def needs(self) -> Statistic:
        """Ranges of samples."""
        return MovingRange()

    def range(self, statistic: Statistic, spec: QuantSpec) -> tuple[float, float]:
        """The average after the last sample."""
        ranges = statistic_as(MovingRange, statistic).ranges.astype(np.float64)
        if not len(ranges):
            return 0.0, 0.0
        # The recursion, written out: (1 - c)**(n - 1) for the first sample, c (1 - c)**(n - i) for the i-th.
        weights = self.constant * (1.0 - self.constant) ** np.arange(len(ranges) - 1, -1, -1)
        weights[0] = (1.0 - self.constant) ** (len(ranges) - 1)
        lo, hi = weights @ ranges / weights.sum()
        least, most = ranges[:, 0].min(), ranges[:, 1].max()
        return float(max(lo, least)), float(min(hi, most))


METHODS.add("moving-average", MovingAverage())
