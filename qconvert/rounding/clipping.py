"""Ranges of blocks that leave the least squared error: both ends drawn in by the same share.

    r* = argmin over r of  sum_k h_k (w_k - round_r(w_k))^2

for each block by itself, r from 1 down to ``_LEAST_SHARE``; h_k = E[x_k^2] where inputs were seen, else 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.blocks import BlockSpec, ends_of, in_blocks, parameters, parts_of

# Below this share of its range no block of a normal or heavier-tailed weight had its best range with 4 bits; with 2
# bits the best is at 0.5 to 0.6.
_LEAST_SHARE = {2: 0.4, 4: 0.6, 8: 0.9}
_STEPS = 20
# Blocks of at most so many weights lie in columns: operations go along many blocks, where each has a scale of its own,
# instead of along the few weights of one (3 times as fast with blocks of 32, numpy 2.4).
_SHORT = 256


def clipped(
    rows: NDArray[np.floating], spec: BlockSpec, importance: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(scale, zero point), [N, B] each, of the best ranges.

    Args:
        rows: [N, K].
        spec: how they are stored.
        importance: h, [K]; None: all alike.
    """
    parts = [_clipped(rows[part], spec, importance) for part in parts_of(rows.shape)]
    return np.concatenate([s for s, _ in parts]), np.concatenate([z for _, z in parts])


def _clipped(
    rows: NDArray[np.floating], spec: BlockSpec, importance: NDArray[np.floating] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    blocks = in_blocks(np.asarray(rows, np.float32), spec)
    weights = None if importance is None else in_blocks(np.asarray(importance, np.float32)[None], spec)
    error = _Error.of(blocks, weights, spec)
    lo, hi = ends_of(rows, spec)
    best_scale, best_zero = parameters(lo, hi, spec)
    least = error(best_scale, best_zero)
    for share in np.linspace(1.0, _LEAST_SHARE[spec.bits], _STEPS + 1)[1:]:
        scale, zero = parameters(lo * share, hi * share, spec)
        found = error(scale, zero)
        better = found < least
        least = np.where(better, found, least)
        best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, zero, best_zero)
    return best_scale, best_zero


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """The squared error of blocks, by their scales and zero points.

    Attributes:
        weights: [size, N B], or [N B, size] where blocks are long.
        importance: that of each weight, of the same shape; None: all alike.
        spec: how they are stored.
        axis: the one along a block.
        codes: room for one value a weight.
    """

    weights: NDArray[np.float32]
    importance: NDArray[np.float32] | None
    spec: BlockSpec
    axis: int
    codes: NDArray[np.float32]

    @classmethod
    def of(cls, blocks: NDArray[np.floating], importance: NDArray[np.floating] | None, spec: BlockSpec) -> _Error:
        """Of ``blocks`` [N, B, size] with ``importance`` [1, B, size]."""
        axis = 0 if blocks.shape[2] <= _SHORT else 1

        def laid(array: NDArray[np.floating]) -> NDArray[np.float32]:
            flat = np.broadcast_to(array, blocks.shape).reshape(-1, blocks.shape[2])
            return np.ascontiguousarray(flat.T if axis == 0 else flat, np.float32)

        weights = laid(blocks)
        return cls(
            weights=weights,
            importance=None if importance is None else laid(importance),
            spec=spec,
            axis=axis,
            codes=np.empty_like(weights),
        )

    def __call__(self, scale: NDArray[np.float32], zero: NDArray[np.uint8]) -> NDArray[np.floating]:
        """[N, B], of ``scale`` and ``zero`` [N, B]."""
        codes = self.codes
        s, z = (np.expand_dims(np.ravel(a).astype(np.float32), self.axis) for a in (scale, zero))
        np.divide(self.weights, s, out=codes)
        np.rint(codes, out=codes)
        np.maximum(codes, -z, out=codes)
        np.minimum(codes, self.spec.top - z, out=codes)
        codes *= s
        codes -= self.weights
        codes *= codes
        if self.importance is not None:
            codes *= self.importance
        return np.asarray(codes.sum(axis=self.axis)).reshape(scale.shape)
