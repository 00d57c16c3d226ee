"""Rounding methods: from a weight in float to a weight in blocks of few bits.

    round(W [N, K], spec, H [K, K] or None) -> codes, and perhaps a factor for each input

H = E[x x^T] are the second moments of what the weight is multiplied with; a method that needs them gets None where
nobody has seen any input, and then falls back on one that needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.blocks import BlockCodes, BlockSpec, Rows
from qconvert.registry import Registry

Moments = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """What a method made.

    Attributes:
        codes: the stored weight.
        method: who made it, after falling back.
        factors: [K], by which the columns of the weight were multiplied first, so that the inputs must be divided by
            them; None: by nothing.
    """

    codes: BlockCodes
    method: str
    factors: NDArray[np.float32] | None = None

    def real(self) -> Rows:
        """The weight that takes the place of the float one, [N, K]."""
        real = self.codes.real()
        return real if self.factors is None else np.asarray(real / self.factors, np.float32)


class Rounding(Protocol):
    """A method."""

    @property
    def name(self) -> str:
        """As users write it."""
        ...

    @property
    def needs_moments(self) -> bool:
        """Whether calibration data help it."""
        ...

    def round(self, rows: Rows, spec: BlockSpec, moments: Moments | None) -> Rounded:
        """The codes of ``rows``."""
        ...


ROUNDINGS: Registry[Rounding] = Registry("rounding method")
ROUNDINGS.discover("qconvert.rounding.methods")


def output_error(rows: Rows, real: Rows, moments: Moments) -> float:
    """E |(W - W') x|^2 = sum over output channels of (w - w') H (w - w')^T."""
    difference = rows.astype(np.float64) - real
    return float(np.einsum("nk,nk->", difference @ moments, difference))
