"""Round to nearest, on blocks that reach from their least to their greatest weight."""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.numerics.blocks import BlockSpec, Rows, encode, ends_of, parameters
from qconvert.rounding.method import ROUNDINGS, Moments, Rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Rtn:
    """The method."""

    name: str = "rtn"
    needs_moments: bool = False

    def round(self, rows: Rows, spec: BlockSpec, moments: Moments | None) -> Rounded:
        """Nearest codes."""
        del moments
        scale, zero = parameters(*ends_of(rows, spec), spec)
        return Rounded(codes=encode(rows, scale, zero, spec), method=self.name)


ROUNDINGS.add("rtn", Rtn())
