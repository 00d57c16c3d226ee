"""Codebooks of least squared error: weighted k-means in one dimension, exact on a histogram.

    C* = argmin over C of  sum_i h_i min over c in C of (w_i - c)^2,    |C| = k

In one dimension clusters are intervals of the sorted points x_1 <= .. <= x_n, so a dynamic program finds them:

    D_j(i) = min over a < i of  D_{j-1}(a) + cost(a, i),   cost(a, i) = S2 - S1^2 / S0 over the points a+1 .. i

(Wang and Song 2011, Ckmeans.1d.dp). The least a that is best does not fall as i grows, so D_j takes O(n log n), row by
row with halved strides. Points are the distinct weights, or the means of ``BINS`` bins where there are more: ends are
half evenly spaced, half quantiles, and clusters can only end where bins do.

Where some weights are exactly zero, the codebook holds zero: k - 1 values are fitted to the others, and Lloyd's
iterations with zero fixed follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.blocks import Rows

BINS = 2048
_SAMPLE = 1 << 16
_ITERATIONS = 30

Vector = NDArray[np.float64]
Parts = Callable[[], Iterator[tuple[NDArray[np.floating], NDArray[np.floating] | None]]]
"""Gives weights a part at a time, each with the importance of its numbers (same shape) or None, as often as called."""


def codebook(parts: Parts, k: int) -> Rows:
    """The ``k`` values [k], sorted, that the numbers of ``parts`` are best rounded to.

    Fewer than ``k`` distinct numbers are all in it; the last is repeated.
    """
    points, weights, zeros = points_of(parts)
    fitted = clusters(points, weights, k - zeros)
    if zeros:
        fitted = _with_zero(points, weights, fitted)
    filled = np.pad(fitted, (0, k - len(fitted)), mode="edge") if len(fitted) else np.zeros(k)
    return filled.astype(np.float32)


def points_of(parts: Parts) -> tuple[Vector, Vector, bool]:
    """(x [n] sorted, weight of each [n], whether there are exact zeros, which are left out)."""
    zeros, sample, seen = False, [], 0
    low, high = np.inf, -np.inf
    distinct: Vector | None = np.zeros(0)
    for values, _ in parts():
        flat = values.reshape(-1)
        zeros = zeros or bool((flat == 0).any())
        step = max(1, flat.size // _SAMPLE)
        sample.append(flat[::step].astype(np.float64))
        seen += flat.size
        if flat.size:
            low, high = min(low, float(flat.min())), max(high, float(flat.max()))
        if distinct is not None:
            distinct = _distinct(distinct, flat)
    if distinct is not None:
        ends = distinct
        sums = _sums(parts, lambda flat: np.searchsorted(ends, flat), len(ends))
    else:
        edges = np.unique(
            np.concatenate(
                [
                    np.linspace(low, high, BINS // 2 + 1)[1:-1],
                    np.quantile(np.concatenate(sample), np.linspace(0, 1, BINS // 2 + 1)[1:-1]),
                ]
            )
        )
        sums = _sums(parts, lambda flat: np.searchsorted(edges, flat), len(edges) + 1)
    total, moment = sums
    kept = total > 0
    return moment[kept] / total[kept], total[kept], zeros


def _distinct(known: Vector, flat: NDArray[np.floating]) -> Vector | None:
    """The distinct numbers so far but for zero; None beyond ``BINS``."""
    if len(np.unique(flat[: 2 * BINS])) > BINS + 1:
        return None
    both = np.union1d(known, flat)
    both = both[both != 0]
    return both if len(both) <= BINS else None


def _sums(
    parts: Parts, index: Callable[[NDArray[np.floating]], NDArray[np.int64]], count: int
) -> tuple[Vector, Vector]:
    """(weight, weight times number) of all that falls into each bin."""
    total, moment = np.zeros(count), np.zeros(count)
    for values, importance in parts():
        flat = values.reshape(-1).astype(np.float64)
        other = flat != 0
        h = np.ones(flat.size) if importance is None else importance.reshape(-1).astype(np.float64)
        flat, h = flat[other], h[other]
        at = index(flat)
        total += np.bincount(at, h, count)
        moment += np.bincount(at, h * flat, count)
    return total, moment


def clusters(points: Vector, weights: Vector, k: int) -> Vector:
    """Means of the best ``k`` clusters, at most [k], sorted; all of ``points`` where there are no more."""
    n = len(points)
    if n <= k:
        return points
    middle = np.average(points, weights=weights)  # keeps the differences of sums of squares exact
    x = points - middle
    s0, s1, s2 = (np.concatenate([[0.0], np.cumsum(weights * x**p)]) for p in range(3))

    def cost(a: NDArray[np.int64], i: NDArray[np.int64]) -> Vector:
        mass = s0[i] - s0[a]
        return np.asarray(s2[i] - s2[a] - (s1[i] - s1[a]) ** 2 / np.where(mass > 0, mass, 1.0))

    best = cost(np.zeros(n + 1, np.int64), np.arange(n + 1))
    best[0] = np.inf  # every cluster holds a point
    starts = []
    for _ in range(k - 1):
        best, start = _next(best, cost)
        starts.append(start)
    firsts = [n]
    for start in reversed(starts):
        firsts.insert(0, int(start[firsts[0]]))
    firsts = [0, *firsts[:-1]]
    # summed anew: differences of sums lose a cluster of weights that are small beside the others
    return np.asarray(np.add.reduceat(weights * points, firsts) / np.add.reduceat(weights, firsts))


def _next(
    before: Vector, cost: Callable[[NDArray[np.int64], NDArray[np.int64]], Vector]
) -> tuple[Vector, NDArray[np.int64]]:
    """(D_j, the best a for each i) from D_{j-1}, all [n + 1]."""
    n = len(before) - 1
    best = np.full(n + 1, np.inf)
    start = np.zeros(n + 1, np.int64)
    # the stride of those that are known already; i = 0 and beyond n bound the others
    stride = 1 << n.bit_length()
    while stride >= 1:
        i = np.arange(stride, n + 1, 2 * stride)
        after = i + stride
        lo = start[i - stride]
        hi = np.minimum(np.where(after <= n, start[np.minimum(after, n)], n), i - 1)
        hi = np.maximum(hi, lo)
        lengths = hi - lo + 1
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        if len(i):
            a = np.arange(int(lengths.sum())) - np.repeat(first - lo, lengths)
            value = before[a] + cost(a, np.repeat(i, lengths))
            least = np.minimum.reduceat(value, first)
            hits = np.flatnonzero(value <= np.repeat(least, lengths))
            best[i], start[i] = least, a[hits[np.searchsorted(hits, first)]]
        stride //= 2
    return best, start


def _with_zero(points: Vector, weights: Vector, fitted: Vector) -> Vector:
    """``fitted`` and zero, the others moved to the means of what is nearest to them."""
    values = np.sort(np.append(fitted, 0.0))
    for _ in range(_ITERATIONS):
        owner = np.searchsorted((values[1:] + values[:-1]) / 2, points)
        mass = np.bincount(owner, weights, len(values))
        means = np.bincount(owner, weights * points, len(values)) / np.where(mass > 0, mass, 1.0)
        moved = np.where((values == 0) | (mass == 0), values, means)
        if np.array_equal(moved, values):
            break
        values = moved
    return values
