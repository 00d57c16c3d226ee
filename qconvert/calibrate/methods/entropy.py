"""Entropy: the range whose quantized distribution loses the least information.

    P   histogram of the data inside a candidate range, the mass outside added to its end bins
    Q   without the added mass, quantized: the non-zero bins that share a code each get their mean
    argmin KL(P || Q) = sum P log(P / Q),  zeros of either replaced by 1e-4 of a count, both then normalised

Codes are those of the real grid, round(x / s), symmetric or not, signed or not; candidates lie on bin edges and span at
least as many bins as there are codes, since a narrower Q would equal P. Ends are searched in turn until neither moves,
coarse to fine; the whole range is a candidate. A histogram with no more bins than codes shows no difference: min-max.
The bin of zero counts no more than its fuller neighbour: ReLU's zeros are exact on every grid, yet a spike that Q
smears over its code would reward ever smaller steps (pytorch-quantization sets bins[0] = bins[1] for that reason).
Source: Migacz 2017, "8-bit inference with TensorRT"; smoothing as in ONNX Runtime's calibrate.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.method import METHODS, statistic_as
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.histogram import Histogram
from qconvert.stats.statistic import Statistic

_SMOOTHING = 1e-4

# Even and geometric candidates, then as many again between the neighbours of the best one, which are at most 170 of
# 4096 bins apart: the end found is within 4 bins, half of an 8-bit step.
_CANDIDATES = 48
_ROUNDS = 2

# Each turn lowers the divergence or ends the search; two outliers of opposite sign need three.
_TURNS = 6


class _Divergence:
    """KL divergence of candidate ranges, given as bin indices of the number line: [first, last)."""

    def __init__(self, hist: Histogram, spec: QuantSpec) -> None:
        self.spec, self.width, self.lo_bin = spec, hist.width, hist.lo_bin
        self.hi_bin = hist.lo_bin + hist.counts.size
        self.counts = hist.counts.astype(np.float64)
        self.centres = (np.arange(self.lo_bin, self.hi_bin) + 0.5) * self.width
        zero = -hist.lo_bin
        neighbours = self.counts[[i for i in (zero - 1, zero + 1) if 0 <= i < self.counts.size]]
        self.counts[zero] = min(self.counts[zero], neighbours.max(initial=0.0))
        self.cumulative = np.concatenate([[0.0], np.cumsum(self.counts)])

    def __call__(self, first: int, last: int) -> float:
        """Divergence of the range from ``first`` to ``last``, which may reach beyond the histogram."""
        scale = float(params_from_range(first * self.width, last * self.width, self.spec).scale)
        i, j = max(first, self.lo_bin) - self.lo_bin, min(last, self.hi_bin) - self.lo_bin
        inside = self.counts[i:j]
        reference = inside.copy()
        reference[0] += self.cumulative[i]
        reference[-1] += self.cumulative[-1] - self.cumulative[j]
        codes = np.rint(self.centres[i:j] / scale).astype(np.int64)
        codes -= codes[0]
        filled = inside > 0
        mean = np.bincount(codes, inside) / np.maximum(np.bincount(codes, filled), 1.0)
        p = _smooth(reference)
        q = _smooth(np.where(filled, mean[codes], 0.0))
        return float(np.sum(p * np.log(p / q)))

    def downto(self, last: int, below: int) -> float:
        """Divergence of the range from ``-below`` to ``last``."""
        return self(-below, last)


def _smooth(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """``counts`` as a distribution without zeros."""
    filled = np.where(counts > 0, counts, _SMOOTHING)
    normal: NDArray[np.float64] = filled / filled.sum()
    return normal


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """Least Kullback-Leibler divergence."""

    name: str = "entropy"

    def needs(self) -> Statistic:
        """A histogram."""
        return Histogram()

    def range(self, statistic: Statistic, spec: QuantSpec) -> tuple[float, float]:
        """The range with the least divergence."""
        hist = statistic_as(Histogram, statistic)
        least, most = hist.extremes.lo, hist.extremes.hi
        if hist.extremes.empty:
            return 0.0, 0.0
        levels = spec.hi - spec.lo + 1
        kl = _Divergence(hist, spec)
        if hist.counts.size <= levels or kl.cumulative[-1] == 0:
            return least, most
        if spec.symmetric:
            largest = max(-kl.lo_bin, kl.hi_bin)
            last, _ = _scan(lambda t: kl(-t, t), min(-(-levels // 2), largest), largest)
            first = -last
        else:
            first, last = _both_ends(kl, levels)
        lo, hi = first * hist.width, last * hist.width
        return float(np.clip(lo, least, most)), float(np.clip(hi, least, most))


def _both_ends(kl: _Divergence, levels: int) -> tuple[int, int]:
    """Scan the upper and the lower end in turn, the other fixed, until neither moves."""
    first, last = kl.lo_bin, kl.hi_bin
    best = kl(first, last)
    for turn in range(_TURNS):
        if turn % 2 == 0:
            moved, found = _scan(partial(kl, first), max(first + levels, 1), kl.hi_bin)
            candidate = first, moved
        else:
            moved, found = _scan(partial(kl.downto, last), max(levels - last, 0), -kl.lo_bin)
            candidate = -moved, last
        if found < best:
            first, last, best = *candidate, found
        elif turn > 0:
            break
    return first, last


def _scan(cost: Callable[[int], float], least: int, most: int) -> tuple[int, float]:
    """The integer of [least, most] with the least cost, and that cost; the greatest of equals."""
    left, right = min(least, most), most
    seen: dict[int, float] = {}
    for _ in range(_ROUNDS):
        grid = np.unique(np.rint(np.linspace(left, right, _CANDIDATES)).astype(np.int64))
        if not seen:
            # Under an outlier the bulk takes few bins, where even steps are too coarse.
            uneven = np.geomspace(max(left, 1), max(right, 1), _CANDIDATES).clip(left, right)
            grid = np.union1d(grid, np.rint(uneven).astype(np.int64))
        seen |= {t: cost(t) for t in grid.tolist() if t not in seen}
        best = min(seen, key=lambda t: (seen[t], -t))
        ordered = sorted(seen)
        at = ordered.index(best)
        left, right = ordered[max(at - 1, 0)], ordered[min(at + 1, len(ordered) - 1)]
    return best, seen[best]


METHODS.add("entropy", Entropy())
