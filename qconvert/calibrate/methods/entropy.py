"""Entropy: the range whose quantized distribution loses the least information.

    P   histogram of the data inside a candidate range, the mass outside added to its end bins
    Q   without the added mass, quantized: the non-zero bins that share a code each get their mean
    argmin KL(P || Q) = sum P log(P / Q),  zeros of either replaced by 1e-4 of a count, both then normalised

Codes are those of the real grid, round(x / s), symmetric or not, signed or not; candidates lie on bin edges and span at
least as many bins as there are codes, since a narrower Q would equal P. Both ends are searched together, then in turn
until neither moves, coarse to fine; the whole range is a candidate. A single outlier is left out first
(:mod:`qconvert.calibrate.outliers`).
The bin of zero counts no more than its fuller neighbour: ReLU's zeros are exact on every grid, yet a spike that Q
smears over its code would reward ever smaller steps (pytorch-quantization sets bins[0] = bins[1] for that reason).

Counts of n elements in F bins are noisy, and Q, which smooths them, differs from P for that alone: 2 n KL has then the
law of chi squared with about F degrees of freedom, of standard deviation sqrt(2 F). So bins are joined in pairs while
they hold fewer than 8 elements in the mean and are more than two a code; and of the candidates whose divergence is
within sqrt(F / 2) / n of the least, the widest is taken. With no more bins than codes nothing is seen: min-max.
Source: Migacz 2017, "8-bit inference with TensorRT"; smoothing as in ONNX Runtime's calibrate.py; Wilks 1938 (2 n KL).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.method import METHODS, statistic_as
from qconvert.calibrate.outliers import inliers
from qconvert.numerics.affine import params_from_range
from qconvert.numerics.spec import QuantSpec
from qconvert.stats.histogram import Histogram
from qconvert.stats.statistic import Statistic

_SMOOTHING = 1e-4
_ELEMENTS_A_BIN, _BINS_A_CODE = 8, 2

# Even and geometric candidates, then as many again between the neighbours of the best one, which are at most 170 of
# 4096 bins apart: the end found is within 4 bins, half of an 8-bit step.
_CANDIDATES = 48
_ROUNDS = 2

# Each turn lowers the divergence or ends the search; two outliers of opposite sign need three.
_TURNS = 6


class _Divergence:
    """KL divergence of candidate ranges, given as bin indices of the number line: [first, last)."""

    def __init__(self, hist: Histogram, spec: QuantSpec) -> None:
        kept = inliers(hist)
        filled = np.flatnonzero(kept.counts)
        counts = kept.counts[filled[0] : filled[-1] + 1].astype(np.float64)
        first = hist.lo_bin + int(filled[0])
        # Bin 0 is always there, as zero is always in the range.
        counts = np.pad(counts, (max(first, 0), max(-first - counts.size + 1, 0)))
        self.spec, self.width, self.lo_bin, self.counts = spec, hist.width, min(first, 0), counts
        self.elements = max(hist.counted, 1)
        while self._bins_hold_little():
            self._join_pairs()
        self.hi_bin = self.lo_bin + self.counts.size
        self.centres = (np.arange(self.lo_bin, self.hi_bin) + 0.5) * self.width
        self.noise = float(np.sqrt(np.count_nonzero(self.counts) / 2)) / self.elements
        zero = -self.lo_bin
        neighbours = self.counts[[i for i in (zero - 1, zero + 1) if 0 <= i < self.counts.size]]
        self.counts[zero] = min(self.counts[zero], neighbours.max(initial=0.0))
        self.cumulative = np.concatenate([[0.0], np.cumsum(self.counts)])

    @property
    def levels(self) -> int:
        """How many codes there are."""
        return self.spec.hi - self.spec.lo + 1

    def _bins_hold_little(self) -> bool:
        enough = _ELEMENTS_A_BIN * np.count_nonzero(self.counts)
        return bool(self.elements < enough) and self.counts.size >= 2 * _BINS_A_CODE * self.levels

    def _join_pairs(self) -> None:
        """Make bins twice as wide; floor(i / 2) is the new index of bin i of the number line."""
        padded = np.pad(self.counts, (self.lo_bin % 2, (self.lo_bin + self.counts.size) % 2))
        self.counts = padded[::2] + padded[1::2]
        self.lo_bin, self.width = self.lo_bin // 2, 2 * self.width

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

    def ends(self, span: int) -> tuple[int, int]:
        """The range of ``span`` bins that is shaped like the whole, and holds zero."""
        first = self.lo_bin * span // self.counts.size
        return first, first + span

    def of_span(self, span: int) -> float:
        """Divergence of that range."""
        return self(*self.ends(span))

    def both_ways(self, most: int) -> float:
        """Divergence of the range from ``-most`` to ``most``."""
        return self(-most, most)


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
        if hist.extremes.empty:
            return 0.0, 0.0
        kept = inliers(hist)
        kl = _Divergence(hist, spec)
        if kl.counts.size <= kl.levels or kl.cumulative[-1] == 0:
            return kept.lo, kept.hi
        if spec.symmetric:
            largest = max(-kl.lo_bin, kl.hi_bin)
            last, _ = _scan(kl.both_ways, min(-(-kl.levels // 2), largest), largest, kl.noise)
            first = -last
        else:
            first, last = _both_ends(kl)
        lo, hi = first * kl.width, last * kl.width
        return float(np.clip(lo, kept.lo, kept.hi)), float(np.clip(hi, kept.lo, kept.hi))


def _both_ends(kl: _Divergence) -> tuple[int, int]:
    """Shrink both ends together, then scan the upper and the lower end in turn, until neither moves."""
    span = kl.hi_bin - kl.lo_bin
    narrowed, best = _scan(kl.of_span, kl.levels, span, kl.noise)
    first, last = kl.ends(narrowed)
    for turn in range(_TURNS):
        if turn % 2 == 0:
            moved, found = _scan(partial(kl, first), max(first + kl.levels, 1), kl.hi_bin, kl.noise)
            candidate = first, moved
        else:
            moved, found = _scan(partial(kl.downto, last), max(kl.levels - last, 0), -kl.lo_bin, kl.noise)
            candidate = -moved, last
        if found < best:
            first, last, best = *candidate, found
        elif turn > 0:
            break
    return first, last


def _scan(cost: Callable[[int], float], least: int, most: int, noise: float) -> tuple[int, float]:
    """The greatest integer of [least, most] whose cost is within ``noise`` of the least found, and its cost."""
    left, right = min(least, most), most
    seen: dict[int, float] = {}
    for _ in range(_ROUNDS):
        grid = np.unique(np.rint(np.linspace(left, right, _CANDIDATES)).astype(np.int64))
        if not seen:
            # Under an outlier the bulk takes few bins, where even steps are too coarse.
            uneven = np.geomspace(max(left, 1), max(right, 1), _CANDIDATES).clip(left, right)
            grid = np.union1d(grid, np.rint(uneven).astype(np.int64))
        seen |= {t: cost(t) for t in grid.tolist() if t not in seen}
        bound = min(seen.values()) + noise
        best = max(t for t, c in seen.items() if c <= bound)
        ordered = sorted(seen)
        at = ordered.index(best)
        left, right = ordered[max(at - 1, 0)], ordered[min(at + 1, len(ordered) - 1)]
    return best, seen[best]


METHODS.add("entropy", Entropy())
