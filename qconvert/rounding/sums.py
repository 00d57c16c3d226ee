"""Rounding of convolution weights that keeps sums, without data.

Neighbouring values of a feature map are nearly alike, so of the errors e of a filter's taps on one channel the sum
counts most; and where inputs are never negative (behind a Relu), their means make the sum over all channels count, too:

    E = sum_k e_k^2 + a sum_c (sum of e over the taps of channel c)^2 + b (sum of all e)^2

a = r / (1 - r) for neighbours of correlation r, and b = m^2 / ((1 - r) v) for inputs of mean m and variance v. Weights
are rounded one after the other, each to the nearest code of what makes up for the errors so far. With m weights of a
channel left, least E gives each of them a r / (1 + a m) of the sum r of the errors of this channel; with n channels of
t taps left, their sums get b g / (1 / t + a + b n) of the sum g over the channels before. GPTQ (Frantar et al. 2023,
arXiv:2210.17323) with H = I + a diag(1 1^T) + b 1 1^T does the same, in the cube of the number of weights.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.blocks import BlockCodes, BlockSpec, Rows, ends_of, parameters

Column = NDArray[np.float64]

# r = 0.9 for the taps; m^2 / v = 0.47 for a normal variable behind a Relu
_TAPS = 9.0
_CHANNELS = 4.7


def keeping_sums(rows: Rows, spec: BlockSpec, taps: int, *, across: bool) -> BlockCodes:
    """Codes of convolution filters. Zeros stay zeros.

    Args:
        rows: [N, C * taps], the taps of a channel together.
        spec: how they are stored, one block a row.
        taps: of the kernel, 9 of a 3 x 3 one.
        across: whether the sum over channels counts.
    """
    scale, zero = parameters(*ends_of(rows, spec), spec)
    low, high = -zero[:, 0].astype(np.float64), spec.top - zero[:, 0].astype(np.float64)
    codes = _rounded(rows / scale, taps, lambda wanted: np.clip(np.rint(wanted), low, high), across=across)
    stored = (codes + zero[:, :1]).astype(np.uint8)
    return BlockCodes(spec=spec, codes=stored, scale=scale, zero=zero)


def in_type(rows: Rows, dtype: np.dtype[np.generic], taps: int, *, across: bool) -> NDArray[np.generic]:
    """Filters [N, C * taps] in a float type of fewer bits, likewise; what it cannot hold becomes its largest value."""
    most = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]

    def nearest(wanted: Column) -> Column:
        return np.asarray(np.clip(wanted, -most, most).astype(dtype), np.float64)

    return _rounded(rows, taps, nearest, across=across).astype(dtype)


def _rounded(
    rows: NDArray[np.floating], taps: int, nearest: Callable[[Column], Column], *, across: bool
) -> NDArray[np.float64]:
    """``rows`` [N, C * taps] on a grid; ``nearest`` rounds a column [N] to it."""
    w = np.asarray(rows, np.float64)
    found = np.zeros_like(w)
    channels = w.shape[1] // taps
    before: Column = np.zeros(w.shape[0])
    for c in range(channels):
        share = _CHANNELS * before / (1 / taps + _TAPS + _CHANNELS * (channels - c)) / taps if across else 0.0 * before
        here: Column = np.zeros(w.shape[0])
        for k in range(c * taps, (c + 1) * taps):
            left = (c + 1) * taps - k
            wanted = w[:, k] + share + _TAPS * here / (1 + _TAPS * left)
            found[:, k] = np.where(w[:, k] == 0, 0.0, nearest(wanted))
            here += w[:, k] + share - found[:, k]
        before += (w[:, c * taps : (c + 1) * taps] - found[:, c * taps : (c + 1) * taps]).sum(axis=1)
    return found
