"""Ranges of blocks that leave the least squared error: both ends drawn in by the same share.

    r* = argmin over r of  sum_k h_k (w_k - round_r(w_k))^2

for each block by itself, r from 1 down to ``_LEAST_SHARE``; h_k = E[x_k^2] where inputs were seen, else 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.blocks import BlockSpec, ends_of, in_blocks, parameters

# Below this share of its range no block of a normal or heavier-tailed weight had its best range with 4 bits; with 2
# bits the best is at 0.5 to 0.6.
_LEAST_SHARE = {2: 0.4, 4: 0.6, 8: 0.9}
_STEPS = 20
# Rows are gone through in parts of about so many weights, so that a large matrix needs no large temporaries.
_PART = 1 << 20


def clipped(
    rows: NDArray[np.floating], spec: BlockSpec, importance: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(scale, zero point), [N, B] each, of the best ranges.

    Args:
        rows: [N, K].
        spec: how they are stored.
        importance: h, [K]; None: all alike.
    """
    step = max(1, _PART // max(1, rows.shape[1]))
    parts = [_clipped(rows[i : i + step], spec, importance) for i in range(0, rows.shape[0], step)]
    return np.concatenate([s for s, _ in parts]), np.concatenate([z for _, z in parts])


def _clipped(
    rows: NDArray[np.floating], spec: BlockSpec, importance: NDArray[np.floating] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    blocks = in_blocks(np.asarray(rows, np.float32), spec)
    weights = None
    if importance is not None:
        weights = in_blocks(np.asarray(importance, np.float32)[None], spec)
    lo, hi = ends_of(rows, spec)
    best_scale, best_zero = parameters(lo, hi, spec)
    least = _error(blocks, best_scale, best_zero, spec, weights)
    for share in np.linspace(1.0, _LEAST_SHARE[spec.bits], _STEPS + 1)[1:]:
        scale, zero = parameters(lo * share, hi * share, spec)
        error = _error(blocks, scale, zero, spec, weights)
        better = error < least
        least = np.where(better, error, least)
        best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, zero, best_zero)
    return best_scale, best_zero


def _error(
    blocks: NDArray[np.floating],
    scale: NDArray[np.float32],
    zero: NDArray[np.uint8],
    spec: BlockSpec,
    weights: NDArray[np.floating] | None,
) -> NDArray[np.floating]:
    """[N, B]."""
    z = zero.astype(np.float32)[:, :, None]
    s = scale[:, :, None]
    codes = np.rint(blocks / s)
    np.clip(codes, -z, spec.top - z, out=codes)
    codes *= s
    codes -= blocks
    codes *= codes
    if weights is not None:
        codes *= weights
    return np.asarray(codes.sum(axis=2))
