"""int32 bias of integer kernels.

The accumulator of a convolution or matrix product has scale s_x * s_w (per output channel when s_w is), so the bias is
stored as b_q = round(b / (s_x * s_w)), int32, zero point 0. A channel whose b_q does not fit gets a larger weight
scale, s_w' = |b| / (s_x * LIMIT), and its weights are rounded anew on that coarser grid.

Source: Jacob et al. 2018, arXiv:1712.05877, section 2.4 (bias scale); the repair is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.affine import MIN_SCALE
from qconvert.numerics.spec import QParams

# Headroom: kernels add the bias to an int32 accumulator, so it may use half of the range at most.
BIAS_LIMIT = 2**30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedBias:
    """codes [O] int32; scale [O] or [] float32 (= s_x * s_w); weight: the weight's parameters after repair;
    repaired: number of channels whose weight scale had to grow."""

    codes: NDArray[np.int32]
    scale: NDArray[np.float32]
    weight: QParams
    repaired: int


def quantize_bias(bias: NDArray[np.floating], input_scale: float, weight: QParams) -> QuantizedBias:
    """Quantize ``bias`` [O] for an input of scale ``input_scale`` and a weight of scale [] or [O]."""
    b = np.abs(np.asarray(bias, np.float64))
    need = b / (input_scale * BIAS_LIMIT)
    if weight.spec.axis is None:
        need = need.max(initial=0.0)
    least = np.maximum(need, MIN_SCALE)
    old = weight.scale.astype(np.float64)
    grown = np.where(old < least, least * 1.0001, old).astype(np.float32)
    repaired = int(np.count_nonzero(grown != weight.scale))
    params = QParams(spec=weight.spec, scale=grown, zero_point=weight.zero_point) if repaired else weight
    scale = (np.float32(input_scale) * params.scale).astype(np.float32)
    codes = np.rint(np.asarray(bias, np.float64) / scale.astype(np.float64))
    return QuantizedBias(codes=codes.astype(np.int32), scale=scale, weight=params, repaired=repaired)
