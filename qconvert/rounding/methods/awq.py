"""AWQ: columns whose inputs are large are multiplied before rounding, so that they are rounded more finely.

    W x = (W diag(f)) (x / f),    f_k = m_k^r / sqrt(max m^r min m^r),    m_k = sqrt(H_kk)

for the r of 0, 0.05 .. 0.95 that leaves the least error of the output, tr((W - W') H (W - W')^T). With r = 0 the weight
is left as it is. Ranges are those of least error.

Lin et al. 2023, arXiv:2306.00978; their m is the mean of |x|, here the root of the mean square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.numerics.blocks import BlockSpec, Rows, encode
from qconvert.rounding.clipping import clipped
from qconvert.rounding.method import ROUNDINGS, Moments, Rounded, output_error
from qconvert.rounding.methods.mse import Mse

_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq:
    """The method."""

    name: str = "awq"
    needs_moments: bool = True

    def round(self, rows: Rows, spec: BlockSpec, moments: Moments | None) -> Rounded:
        """Codes of the weight with scaled columns."""
        if moments is None or not np.isfinite(moments).all() or not moments.any():
            return Mse().round(rows, spec, None)
        diagonal = np.diagonal(moments)
        sizes = np.sqrt(np.maximum(diagonal, 1e-8 * diagonal.max()))
        best = Mse().round(rows, spec, moments)
        least = output_error(rows, best.real(), moments)
        for step in range(1, _STEPS):
            raw = sizes ** (step / _STEPS)
            factors = (raw / np.sqrt(raw.max() * raw.min())).astype(np.float32)
            scaled = np.asarray(rows * factors, np.float32)
            scale, zero = clipped(scaled, spec, diagonal / factors.astype(np.float64) ** 2)
            tried = Rounded(codes=encode(scaled, scale, zero, spec), method=self.name, factors=factors)
            error = output_error(rows, tried.real(), moments)
            if error < least:
                best, least = tried, error
        return Rounded(codes=best.codes, method=self.name, factors=best.factors)


ROUNDINGS.add("awq", Awq())
