"""Round to nearest, on ranges that leave the least squared error (:mod:`qconvert.rounding.clipping`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.numerics.blocks import BlockSpec, Rows, encode
from qconvert.rounding.clipping import clipped
from qconvert.rounding.method import ROUNDINGS, Moments, Rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Mse:
    """The method; where inputs were seen, the error of a weight counts as its input is large."""

    name: str = "mse"
    needs_moments: bool = False

    def round(self, rows: Rows, spec: BlockSpec, moments: Moments | None) -> Rounded:
        """Nearest codes on clipped ranges."""
        importance = np.diagonal(moments) if moments is not None else None
        scale, zero = clipped(rows, spec, importance)
        return Rounded(codes=encode(rows, scale, zero, spec), method=self.name)


ROUNDINGS.add("mse", Mse())
