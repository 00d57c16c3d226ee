"""GPTQ on blocks: the error of each rounded weight is made up for by those not rounded yet.

The formulae are those of :mod:`qconvert.recover.passes.gptq`. Blocks get their ranges before anything is rounded, by
the least error weighed with H_kk, so that columns can be taken in the order of falling H_kk whatever block they are in.
Weights that are exactly zero stay zero.

Frantar et al. 2023, arXiv:2210.17323; ranges fixed beforehand are "static groups" there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.numerics.blocks import BlockCodes, BlockSpec, Rows
from qconvert.rounding.clipping import clipped
from qconvert.rounding.method import ROUNDINGS, Moments, Rounded
from qconvert.rounding.methods.mse import Mse


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """The method.

    Attributes:
        damping: added to the diagonal of H, as a share of its mean.
        lazy: columns that are rounded before the columns behind them are updated.
    """

    name: str = "gptq"
    needs_moments: bool = True
    damping: float = 0.01
    lazy: int = 128

    def round(self, rows: Rows, spec: BlockSpec, moments: Moments | None) -> Rounded:
        """Codes rounded with compensation."""
        if moments is None or not np.isfinite(moments).all() or not moments.any():
            return Mse().round(rows, spec, None)
        diagonal = np.diagonal(moments)
        order = np.argsort(-diagonal, kind="stable")
        columns = rows.shape[1]
        h = moments[np.ix_(order, order)]
        h[np.arange(columns), np.arange(columns)] += self.damping * diagonal.mean() + 1e-12
        upper = np.linalg.cholesky(np.linalg.inv(h)).T

        scale, zero = clipped(rows, spec, diagonal)
        block = order // spec.size(columns)
        scales, zeros = scale.astype(np.float64)[:, block], zero.astype(np.float64)[:, block]
        fixed = rows[:, order] == 0
        w = rows[:, order].astype(np.float64)
        codes = np.zeros(w.shape)
        for start in range(0, columns, self.lazy):
            end = min(start + self.lazy, columns)
            errors = np.zeros((w.shape[0], end - start))
            for i in range(start, end):
                w[fixed[:, i], i] = 0.0
                codes[:, i] = np.clip(np.rint(w[:, i] / scales[:, i]) + zeros[:, i], 0, spec.top)
                error = (w[:, i] - (codes[:, i] - zeros[:, i]) * scales[:, i]) / upper[i, i]
                w[:, i + 1 : end] -= error[:, None] * upper[i, i + 1 : end]
                errors[:, i - start] = error
            w[:, end:] -= errors @ upper[start:end, end:]
        placed = np.empty(w.shape, np.uint8)
        placed[:, order] = codes.astype(np.uint8)
        return Rounded(codes=BlockCodes(spec=spec, codes=placed, scale=scale, zero=zero), method=self.name)


ROUNDINGS.add("gptq", Gptq())
