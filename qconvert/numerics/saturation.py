"""Saturation of 8-bit products on x86 without VNNI.

There the integer kernels multiply unsigned activation codes a with signed weight codes w by ``vpmaddubsw``, which adds
two neighbouring products in 16 bits and saturates:

    pair_p = clip(a_2p w_2p + a_2p+1 w_2p+1, -32768, 32767)         sum = pair_0 + pair_1 + ...   (32 bits)

The neighbours are those along the reduction axis, in the order in which the kernel goes through it: rows of a matrix
product from the first on, and for a convolution all channels of a kernel position, then the next position. With codes
a in [lo, hi] the pair stays exact if and only if

    sum of max(w lo, w hi) <= 32767   and   sum of min(w lo, w hi) >= -32768

so for a in [0, 255] two weights of one sign may have |w0| + |w1| = 128 together, and two of opposite signs are always
safe. Depthwise convolutions are summed in 32 bits and never saturate; nor do ConvInteger, and products of two unsigned
or two signed operands, which take other, slower kernels.

Order and cases were checked bit by bit against ONNX Runtime 1.32's own kernels on an emulated processor with AVX2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.numerics.affine import dequantize, quantize
from qconvert.numerics.spec import QParams

INT16_LO, INT16_HI = -32768, 32767
UINT8_RANGE = (0, 255)

# |w0| + |w1| of two weights of one sign, under any unsigned bytes.
MOST_OF_A_PAIR = INT16_HI // 255

# Scales tried between the one that is given and the one that needs no clipping, which is at most twice as large.
_TRIALS = 17

Order = NDArray[np.intp]
"""[O, K]: for each output channel the places of its weights in the flattened array, in the order of the kernel."""


def conv_order(shape: tuple[int, ...]) -> Order:
    """Order of a convolution's weight [O, I/group, *kernel]: positions outside, channels inside -> [O, K]."""
    places = np.arange(int(np.prod(shape)), dtype=np.intp).reshape(shape)
    return np.moveaxis(places, 1, -1).reshape(shape[0], -1)


def matmul_order(shape: tuple[int, ...], *, transposed: bool = False) -> Order:
    """Order of a matrix [..., K, N] -> [... * N, K], or of a transposed one, [..., N, K]."""
    places = np.arange(int(np.prod(shape)), dtype=np.intp).reshape(shape)
    return (places if transposed else np.swapaxes(places, -1, -2)).reshape(-1, shape[-1 if transposed else -2])


def unsafe_channels(
    codes: NDArray[np.integer], order: Order, activation_range: tuple[int, int] = UINT8_RANGE
) -> NDArray[np.bool_]:
    """Which output channels can saturate for some activations: [O].

    Args:
        codes: signed weight codes, any shape.
        order: where each channel's weights are, from :func:`conv_order` or :func:`matmul_order`.
        activation_range: least and greatest activation code, both within 0..255.
    """
    low, high = pair_bounds(codes.reshape(-1)[order], activation_range)
    return np.asarray(((low < INT16_LO) | (high > INT16_HI)).any(axis=1))


def pair_bounds(
    rows: NDArray[np.integer], activation_range: tuple[int, int] = UINT8_RANGE
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(least, greatest) value that each pair of neighbours can add up to: rows [O, K] -> [O, ceil(K / 2)] each."""
    lo, hi = activation_range
    if not 0 <= lo <= hi <= 255:
        raise InternalError(f"activation codes from {lo} to {hi} are not unsigned bytes")
    pairs = _pairs(rows.astype(np.int32))
    low, high = np.minimum(pairs * lo, pairs * hi), np.maximum(pairs * lo, pairs * hi)
    return low.sum(axis=2, dtype=np.int32), high.sum(axis=2, dtype=np.int32)


def _pairs(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """[O, K] -> [O, ceil(K / 2), 2]; a last weight without neighbour gets a zero, as in the kernels."""
    return np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(rows.shape[0], -1, 2)


def product(activations: NDArray[np.integer], rows: NDArray[np.integer], *, saturate: bool) -> NDArray[np.int64]:
    """Sums of products of codes: activations [M, K] (uint8) and rows [O, K] (int8) -> [M, O].

    Args:
        activations: codes as stored, zero point included.
        rows: weight codes in the order of the kernel.
        saturate: add pairs in 16 bits, as x86 without VNNI does; else exactly.
    """
    # float64 holds every partial sum exactly, and has a fast product
    exact = activations.astype(np.float64) @ rows.astype(np.float64).T
    total = np.asarray(np.rint(exact), np.int64)
    if not saturate:
        return total
    # what each activation was at least and at most rules out nearly all pairs
    weights = _pairs(rows.astype(np.int32))
    codes = np.pad(activations.astype(np.int32), ((0, 0), (0, rows.shape[1] % 2)))
    if not codes.size:
        return total
    least, most = codes.min(axis=0).reshape(-1, 2), codes.max(axis=0).reshape(-1, 2)
    low = np.minimum(weights * least, weights * most).sum(axis=2)
    high = np.maximum(weights * least, weights * most).sum(axis=2)
    unsafe = (low < INT16_LO) | (high > INT16_HI)
    first, second = codes[:, 0::2].T.copy(), codes[:, 1::2].T.copy()
    for p in np.flatnonzero(unsafe.any(axis=0)):
        channels = np.flatnonzero(unsafe[:, p])
        # no weight is beyond -128, so two activations of 255 together cannot saturate
        taken = np.flatnonzero(first[p] + second[p] > 255)
        pair = np.multiply.outer(first[p, taken], weights[channels, p, 0])
        pair += np.multiply.outer(second[p, taken], weights[channels, p, 1])
        excess = pair - np.clip(pair, INT16_LO, INT16_HI)
        hit = np.flatnonzero(excess.any(axis=1))
        total[np.ix_(taken[hit], channels)] -= excess[hit]
    return total


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shrunk:
    """A weight that cannot saturate.

    Attributes:
        weight: float32; ``quantize(weight, params)`` gives codes that are safe.
        params: the parameters, with a scale that is larger where that was better than clipping.
        channels: number of output channels that were changed.
    """

    weight: NDArray[np.float32]
    params: QParams
    channels: int


def shrink(weight: NDArray[np.floating], params: QParams, order: Order) -> Shrunk:
    """Change the channels of ``weight`` that could saturate, and only these, so that they cannot.

    A larger scale makes all weights of a channel coarser; clipping a pair of large weights to what is safe distorts
    two of them. Between the given scale and the least one without clipping, the scale is taken whose codes are nearest
    to the weights in the sum of squares.

    Args:
        weight: float weights.
        params: signed 8-bit parameters with zero point 0: a scale in all, or one a row of ``order``.
        order: from :func:`conv_order` or :func:`matmul_order`.
    """
    if not params.spec.qtype.signed or np.any(params.zero_point):
        raise InternalError("only symmetric signed weights can saturate, and be shrunk")
    codes = quantize(weight, params).reshape(-1)[order].astype(np.int32)
    low, high = pair_bounds(codes)
    bad = np.asarray(((low < INT16_LO) | (high > INT16_HI)).any(axis=1))
    if not bad.any():
        return Shrunk(weight=np.asarray(weight, np.float32), params=params, channels=0)
    rows = np.asarray(weight, np.float64).reshape(-1)[order]
    one_scale = params.scale.ndim == 0
    scale = np.broadcast_to(params.scale, rows.shape[:1]).astype(np.float64)
    chosen, best = scale.copy(), np.full(rows.shape[0], np.inf)
    for growth in np.linspace(1.0, 2.0, _TRIALS):
        trial = scale * growth
        error = ((_safe_codes(rows, trial, params) * trial[:, None] - rows) ** 2).sum(axis=1)
        if one_scale:
            error = np.full_like(error, error.sum())
        better = (error < best) & (bad if not one_scale else True)
        chosen, best = np.where(better, trial, chosen), np.where(better, error, best)
    grown = np.asarray(chosen[0] if one_scale else chosen, np.float32)
    params = QParams(spec=params.spec, scale=grown, zero_point=params.zero_point)
    stored = np.broadcast_to(params.scale, rows.shape[:1]).astype(np.float64)
    # channels that were safe keep their codes; with one scale in all, every channel is rounded anew
    safe = _safe_codes(rows, stored, params)
    safe = safe if one_scale else np.where(bad[:, None], safe, codes)
    flat = np.zeros(weight.size, params.spec.qtype.dtype)
    flat[order.reshape(-1)] = safe.reshape(-1).astype(params.spec.qtype.dtype)
    return Shrunk(weight=dequantize(flat.reshape(weight.shape), params), params=params, channels=int(bad.sum()))


def _safe_codes(rows: NDArray[np.float64], scale: NDArray[np.float64], params: QParams) -> NDArray[np.int32]:
    """Codes of ``rows`` [O, K] under ``scale`` [O]; in a pair that could saturate both come down by half the excess."""
    codes = np.clip(np.rint(rows / scale[:, None]), params.spec.lo, params.spec.hi).astype(np.int32)
    pairs = _pairs(codes)
    low, high = pair_bounds(codes)
    bad = (low < INT16_LO) | (high > INT16_HI)
    size = np.abs(pairs)
    excess = np.where(bad, size.sum(axis=2) - MOST_OF_A_PAIR, 0)
    first = np.clip((excess + 1) // 2, excess - size[..., 1], size[..., 0])
    cut = np.stack([first, excess - first], axis=2)
    return np.asarray((pairs - np.sign(pairs) * cut).reshape(codes.shape[0], -1)[:, : codes.shape[1]])
