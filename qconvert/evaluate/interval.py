"""Confidence intervals of metrics, and of their drop when both models have scored the same samples.

Scores are hits (1 or 0 a sample) or real numbers. Two models on the same samples are paired, so only samples on which
they differ say anything about the difference:

    hits, drop      b samples hit by the reference alone, c by the other alone, n in all
                    b' = b + 1/2, c' = c + 1/2, n' = n + 2
                    (b' - c') / n'  -+  z sqrt( (b' + c') - (b' - c')^2 / n' ) / n'
    hits, one model Wilson's score interval:  p = h / n
                    ( p + z^2 / 2n  -+  z sqrt( p (1 - p) / n + z^2 / 4n^2 ) ) / (1 + z^2 / n)
    real numbers    mean -+ t s / sqrt(n),  s the standard deviation of the scores, or of their differences

The first is the adjusted Wald interval of Agresti and Min 2005 (Statistics in Medicine 24, 729-740): the plain one has
no width at all where no sample changes sides, as with most quantized models. Wilson 1927 (JASA 22, 209-212). t is
Student's quantile with n - 1 degrees of freedom by the expansion 26.7.5 of Abramowitz and Stegun.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
# Below this many samples a standard deviation means little, and the expansion of t is off by more than 2 %.
_FEWEST = 5

Scores = NDArray[np.bool_] | NDArray[np.float64]
"""One score a sample, [N]: bool for hits, float64 for real numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval.

    Attributes:
        low, high: its ends, in the unit of what it is of; for a drop positive is worse.
        confidence: how sure it is, 0..1.
    """

    low: float
    high: float
    confidence: float = CONFIDENCE

    @property
    def half_width(self) -> float:
        """Half the distance between its ends."""
        return (self.high - self.low) / 2


def paired_interval(reference: Scores, other: Scores, confidence: float = CONFIDENCE) -> Interval | None:
    """The interval of mean(reference) - mean(other), for scores [N] of the same samples.

    None where real scores are fewer than 5 or not finite.
    """
    if reference.dtype == other.dtype == np.bool_:
        hit, also = np.asarray(reference, np.bool_), np.asarray(other, np.bool_)
        b, c = int(np.count_nonzero(hit & ~also)), int(np.count_nonzero(also & ~hit))
        total, lost, won = len(reference) + 2, b + 0.5, c + 0.5
        half = _z(confidence) * math.sqrt(lost + won - (lost - won) ** 2 / total) / total
        return _around((lost - won) / total, half, confidence, least=-1.0, most=1.0)
    first, second = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    return _of_mean(first - second, confidence)


def score_interval(scores: Scores, confidence: float = CONFIDENCE) -> Interval | None:
    """The interval of mean(scores), for scores [N] of one model.

    None where there is no score, or real ones are fewer than 5 or not finite.
    """
    if scores.dtype != np.bool_:
        return _of_mean(np.asarray(scores, np.float64), confidence)
    if not len(scores):
        return None
    z, n, p = _z(confidence), len(scores), float(scores.mean())
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    shrink = 1 + z * z / n
    return _around((p + z * z / (2 * n)) / shrink, half / shrink, confidence, least=0.0, most=1.0)


def _of_mean(values: NDArray[np.float64], confidence: float) -> Interval | None:
    if len(values) < _FEWEST or not np.isfinite(values).all():
        return None
    half = _t(confidence, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return _around(float(values.mean()), half, confidence)


def _around(
    middle: float, half: float, confidence: float, *, least: float = -math.inf, most: float = math.inf
) -> Interval:
    return Interval(low=max(least, middle - half), high=min(most, middle + half), confidence=confidence)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _t(confidence: float, degrees: int) -> float:
    """Student's two-sided quantile: 2.776 for 0.95 and 4 degrees of freedom."""
    z = _z(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / degrees**power for power, term in enumerate(terms, start=1)))
