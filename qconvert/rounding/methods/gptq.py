"""GPTQ on blocks (:mod:`qconvert.rounding.compensation`).

Blocks get their ranges before anything is rounded, by the least error weighed with H_kk, so that columns can be taken
in the order of falling H_kk whatever block they are in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.numerics.blocks import BlockCodes, BlockSpec, Rows
from qconvert.rounding.clipping import clipped
from qconvert.rounding.compensation import Vector, compensated
from qconvert.rounding.method import ROUNDINGS, Moments, Rounded
from qconvert.rounding.methods.mse import Mse


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """The method.

    Attributes:
        damping, lazy: as in :func:`~qconvert.rounding.compensation.compensated`.
    """

    name: str = "gptq"
    needs_moments: bool = True
    damping: float = 0.01
    lazy: int = 128

    def round(self, rows: Rows, spec: BlockSpec, moments: Moments | None) -> Rounded:
        """Codes rounded with compensation."""
        if moments is None or not np.isfinite(moments).all() or not moments.any():
            return Mse().round(rows, spec, None)
        scale, zero = clipped(rows, spec, np.diagonal(moments))
        size = spec.size(rows.shape[1])

        def nearest(column: int, values: Vector) -> tuple[Vector, Vector]:
            s, z = (p[:, column // size].astype(np.float64) for p in (scale, zero))
            codes = np.clip(np.rint(values / s) + z, 0, spec.top)
            return codes, (codes - z) * s

        placed = compensated(rows, moments, nearest, damping=self.damping, lazy=self.lazy)
        return Rounded(codes=BlockCodes(spec=spec, codes=placed, scale=scale, zero=zero), method=self.name)


ROUNDINGS.add("gptq", Gptq())
