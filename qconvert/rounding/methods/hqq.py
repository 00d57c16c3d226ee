"""Half-quadratic quantization: zero points fitted to a norm that forgives outliers, without data.

    minimise over z   phi(W - s (Q - z)),   Q = clip(round(W / s + z)),   phi the l_p norm, p = 0.7

by turns, for a given s: the error E = shrink_p(W - s (Q - z), beta), then z = mean over the block of Q - (W - E) / s;
beta grows by kappa each turn, and the turns end when mean |W - s (Q - z)| no longer falls.

    shrink_p(x, beta) = sign(x) max(0, |x| - |x|^(p - 1) / beta)

Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models", with their constants. Their zero
points are fractions; here they are rounded at the end (:mod:`qconvert.numerics.blocks` says why). Symmetric weights
have no zero point to fit, and get the range of least error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.numerics.blocks import BlockSpec, Rows, encode, ends_of, in_blocks, parameters
from qconvert.rounding.clipping import clipped
from qconvert.rounding.method import ROUNDINGS, Moments, Rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Hqq:
    """The method.

    Attributes:
        turns: most turns.
        p: of the norm.
        beta, kappa: weight of the error term at the start, and its growth a turn.
    """

    name: str = "hqq"
    needs_moments: bool = False
    turns: int = 20
    p: float = 0.7
    beta: float = 10.0
    kappa: float = 1.01

    def round(self, rows: Rows, spec: BlockSpec, moments: Moments | None) -> Rounded:
        """Nearest codes around fitted zero points."""
        del moments
        if spec.symmetric:
            scale, zero = clipped(rows, spec)
            return Rounded(codes=encode(rows, scale, zero, spec), method=self.name)
        scale, start = parameters(*ends_of(rows, spec), spec)
        blocks, s = in_blocks(rows, spec), scale[:, :, None]
        z = start.astype(np.float32)[:, :, None]
        best, least, beta = z, np.inf, self.beta
        for _ in range(self.turns):
            codes = np.clip(np.rint(blocks / s + z), 0, spec.top)
            error = blocks - s * (codes - z)
            size = float(np.abs(error).mean())
            if size >= least:
                break
            best, least = z, size
            error = self._shrink(error, beta)
            z = np.mean(codes - (blocks - error) / s, axis=2, keepdims=True)
            beta *= self.kappa
        zero = np.clip(np.rint(best[:, :, 0]), 0, spec.top).astype(np.uint8)
        return Rounded(codes=encode(rows, scale, zero, spec), method=self.name)

    def _shrink(self, error: Rows, beta: float) -> Rows:
        size = np.abs(error)
        return np.asarray(np.sign(error) * np.maximum(0.0, size - np.maximum(size, 1e-8) ** (self.p - 1) / beta))


ROUNDINGS.add("hqq", Hqq())
