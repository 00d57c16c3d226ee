"""What integer kernels compute, in numpy: the sums of products of convolutions and matrix products.

    sum_k (a_k - z_a) (w_k - z_w) = sum a w - z_a sum w - z_w sum a + K z_a z_w

The first term is what the kernel adds up product by product, and what can saturate (numerics/saturation.py); the others
are corrections that it makes in 32 bits. Padding has the code z_a.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.saturation import matmul_order, product

Codes = NDArray[np.integer]


def matmul_sums(a: Codes, w: Codes, zero_a: int, zero_w: NDArray[np.int64], *, saturate: bool) -> NDArray[np.int64]:
    """a [..., M, K] times w [K, N] or [..., K, N] -> [..., M, N].

    Args:
        a, w: codes; leading axes broadcast as those of MatMul.
        zero_a: zero point of ``a``.
        zero_w: of ``w``, [] or [N].
        saturate: add pairs in 16 bits.
    """
    if w.ndim > 2:
        lead = np.broadcast_shapes(a.shape[:-2], w.shape[:-2])
        left = np.broadcast_to(a, (*lead, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
        right = np.broadcast_to(w, (*lead, *w.shape[-2:])).reshape(-1, *w.shape[-2:])
        parts = [matmul_sums(x, y, zero_a, zero_w, saturate=saturate) for x, y in zip(left, right, strict=True)]
        return np.stack(parts).reshape(*lead, a.shape[-2], w.shape[-1])
    rows = w.reshape(-1)[matmul_order(w.shape)]
    sums = _sums(a.reshape(-1, a.shape[-1]), rows, zero_a, zero_w, saturate=saturate)
    return sums.reshape(*a.shape[:-1], w.shape[-1])


def conv_sums(
    a: Codes,
    w: Codes,
    zero_a: int,
    zero_w: NDArray[np.int64],
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
    saturate: bool,
) -> NDArray[np.int64]:
    """a [N, I, *S] convolved with w [O, I / group, *kernel] -> [N, O, *S'].

    Args:
        a, w: codes.
        zero_a: zero point of ``a``.
        zero_w: of ``w``, [] or [O].
        strides, dilations: one for each spatial axis.
        pads: those before, then those after, as ONNX has them.
        group: of the convolution; a depthwise one never saturates.
        saturate: add pairs in 16 bits.
    """
    rank = a.ndim - 2
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(a, widths, constant_values=zero_a)
    spans = tuple((k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
    windows = windows[(*steps, *(slice(None, None, d) for d in dilations))]
    places = windows.shape[2 : 2 + rank]
    per_group, outputs = w.shape[1], w.shape[0] // group
    zeros = np.broadcast_to(zero_w, (w.shape[0],))
    saturate = saturate and not per_group == outputs == 1
    found = []
    for g in range(group):
        part = windows[:, g * per_group : (g + 1) * per_group]
        # [N, I, *places, *kernel] -> [N, *places, *kernel, I]: positions outside, channels inside
        columns = np.moveaxis(part, 1, -1).reshape(a.shape[0] * int(np.prod(places)), -1)
        chosen = slice(g * outputs, (g + 1) * outputs)
        rows = np.moveaxis(w[chosen], 1, -1).reshape(outputs, -1)
        found.append(_sums(columns, rows, zero_a, zeros[chosen], saturate=saturate))
    sums = np.concatenate(found, axis=1).reshape(a.shape[0], *places, w.shape[0])
    return np.moveaxis(sums, -1, 1)


def _sums(a: Codes, rows: Codes, zero_a: int, zero_w: NDArray[np.int64], *, saturate: bool) -> NDArray[np.int64]:
    """a [M, K], rows [O, K] -> [M, O]."""
    sums = product(a, rows, saturate=saturate)
    sums -= zero_a * rows.sum(axis=1, dtype=np.int64)
    if np.any(zero_w):
        sums -= (a.sum(axis=1, dtype=np.int64)[:, None] - zero_a * a.shape[1]) * zero_w
    return sums
