"""Affine quantization.

    code = clip(round(x / scale) + zero_point, lo, hi)          round half to even, as ONNX QuantizeLinear
    real = scale * (code - zero_point)

Range [a, b] (always widened to contain 0, so that zero is exact) to parameters:

    asymmetric   scale = (b - a) / (hi - lo)           zero_point = round(lo - a / scale)
    symmetric    scale = max(-a, b) / ((hi - lo) / 2)  zero_point = 0 (signed) or the middle code (unsigned)

Source: ONNX operator specification, QuantizeLinear-21; Jacob et al. 2018, arXiv:1712.05877, equations 1 and 13.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qconvert.errors import InternalError
from qconvert.numerics.spec import PerAxis, QParams, QuantSpec

_Element = TypeVar("_Element", bound=np.generic)

# Scales below this would make the int32 bias scale (a product of two scales) underflow float32.
MIN_SCALE = 1e-18

# Any scale encodes a weight of zeros, but its bias is rounded to s_x times this: 2**-14 keeps |b| up to 65536 s_x to
# within 3e-5 s_x, and a larger bias makes the scale grow (see numerics/bias.py).
EMPTY_WEIGHT_SCALE = 2.0**-14


def params_from_range(lo: ArrayLike, hi: ArrayLike, spec: QuantSpec) -> QParams:
    """Scale and zero point that cover [lo, hi].

    Args:
        lo, hi: finite bounds, [] for per tensor or [channels] for per axis.
        spec: the target spec; its granularity must fit the bounds' shape.

    Returns:
        QParams whose range contains [lo, hi] up to half a step. An all-zero range gets scale 1.

    Raises:
        InternalError: a bound is NaN or infinite.
    """
    a = np.minimum(np.asarray(lo, np.float64), 0.0)
    b = np.maximum(np.asarray(hi, np.float64), 0.0)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InternalError("a range with NaN or infinity reached params_from_range")
    raw = _raw_scale(a, b, spec)
    scale = np.asarray(np.where(raw < MIN_SCALE, 1.0, raw), np.float32)
    if spec.symmetric:
        zero = np.full(a.shape, _middle(spec))
    else:
        zero = np.clip(np.rint(spec.lo - a / scale.astype(np.float64)), spec.lo, spec.hi)
    # asarray, because numpy functions turn arrays of shape [] into scalars, which are no arrays to store.
    return QParams(spec=spec, scale=scale, zero_point=np.asarray(zero, spec.qtype.dtype))


def _middle(spec: QuantSpec) -> int:
    """The code of zero in a symmetric grid."""
    return 0 if spec.qtype.signed else (spec.qtype.lo + spec.qtype.hi + 1) // 2


def _raw_scale(a: NDArray[np.float64], b: NDArray[np.float64], spec: QuantSpec) -> NDArray[np.float64]:
    """Scale that covers [a, b], which contains 0; it may be 0."""
    if spec.symmetric:
        return np.asarray(np.maximum(-a, b) / min(spec.hi - _middle(spec), _middle(spec) - spec.lo))
    return np.asarray((b - a) / (spec.hi - spec.lo))


def along_axis(values: NDArray[_Element], spec: QuantSpec, rank: int) -> NDArray[_Element]:
    """Shape [C] parameters so that they broadcast over a tensor of ``rank``: axis 1 of 4 -> [1, C, 1, 1]."""
    if spec.axis is None:
        return values
    shape = [1] * rank
    shape[spec.axis] = -1
    return values.reshape(shape)


def quantize(x: NDArray[np.floating], params: QParams) -> NDArray[np.generic]:
    """Codes of ``x`` [any shape] in the spec's integer type, same shape."""
    spec = params.spec
    scale = along_axis(params.scale, spec, x.ndim)
    zero = along_axis(params.zero_point, spec, x.ndim).astype(np.float64)
    codes = np.rint(np.asarray(x, np.float32) / scale).astype(np.float64) + zero
    return np.asarray(np.clip(codes, spec.lo, spec.hi), spec.qtype.dtype)


def dequantize(codes: NDArray[np.generic], params: QParams) -> NDArray[np.float32]:
    """Real values of ``codes`` [any shape], float32, same shape."""
    scale = along_axis(params.scale, params.spec, codes.ndim)
    zero = along_axis(params.zero_point, params.spec, codes.ndim).astype(np.int32)
    return np.asarray((codes.astype(np.int32) - zero) * scale, np.float32)


def weight_range(w: NDArray[np.floating], spec: QuantSpec) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest value of ``w``: [] per tensor, [channels] per axis; [O, I, 3, 3] axis 0 -> [O], [O]."""
    if w.size == 0:
        shape = () if spec.axis is None else (w.shape[spec.axis],)
        return np.zeros(shape), np.zeros(shape)
    if isinstance(spec.granularity, PerAxis):
        others = tuple(i for i in range(w.ndim) if i != spec.granularity.axis)
        return w.min(axis=others).astype(np.float64), w.max(axis=others).astype(np.float64)
    return np.asarray(w.min(), np.float64), np.asarray(w.max(), np.float64)


def weight_params(w: NDArray[np.floating], spec: QuantSpec) -> QParams:
    """Min-max parameters of a constant weight.

    A channel of zeros (or of values too small for a scale) takes the largest scale of the others, EMPTY_WEIGHT_SCALE
    where there is none, not 1: the int32 bias of that channel has scale s_x * s_w, and a scale of 1 would make the
    bias as coarse as the activation.
    """
    lo, hi = weight_range(w, spec)
    params = params_from_range(lo, hi, spec)
    empty = _raw_scale(np.minimum(lo, 0.0), np.maximum(hi, 0.0), spec) < MIN_SCALE
    if not empty.any():
        return params
    largest = EMPTY_WEIGHT_SCALE if empty.all() else params.scale[~empty].max()
    scale = np.asarray(np.where(empty, largest, params.scale), np.float32)
    return QParams(spec=spec, scale=scale, zero_point=params.zero_point)
