"""What a quantized tensor looks like: type, symmetry, granularity (QuantSpec), and its numbers (QParams).

Shapes by example: a convolution weight [O, I, 3, 3] with PerAxis(0) has scale [O] and zero_point [O];
an activation with PerTensor() has scale [] and zero_point [].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.numerics.dtypes import QType


@dataclass(frozen=True, slots=True, kw_only=True)
class PerTensor:
    """One scale and zero point for the whole tensor: scale []."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerAxis:
    """One scale and zero point for each slice along ``axis`` (>= 0): tensor [A, B], axis 0 -> scale [A]."""

    axis: int

    def __post_init__(self) -> None:
        if self.axis < 0:
            raise InternalError(f"PerAxis needs a non-negative axis, got {self.axis}")


Granularity = PerTensor | PerAxis


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantSpec:
    """How a tensor is to be quantized; the numbers come later, as QParams.

    Attributes:
        qtype: integer type of the codes.
        symmetric: the range is +-max|x|, so that zero has the middle code (0 signed, 128 unsigned).
        granularity: PerTensor or PerAxis.
        narrow_range: leave out the least code (int8: -127..127), so that negation is exact.
    """

    qtype: QType
    symmetric: bool
    granularity: Granularity = PerTensor()
    narrow_range: bool = False

    @property
    def lo(self) -> int:
        """Least code in use."""
        return self.qtype.lo + (1 if self.narrow_range else 0)

    @property
    def hi(self) -> int:
        """Greatest code in use."""
        return self.qtype.hi

    @property
    def axis(self) -> int | None:
        """The channel axis, None when per tensor."""
        return self.granularity.axis if isinstance(self.granularity, PerAxis) else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QParams:
    """Scale and zero point of a tensor under a spec.

    real = scale * (code - zero_point)

    Attributes:
        spec: the spec they belong to.
        scale: float32, [] or [channels]; positive and finite.
        zero_point: of the spec's integer type, same shape as scale.
    """

    spec: QuantSpec
    scale: NDArray[np.float32]
    zero_point: NDArray[np.generic]

    def __post_init__(self) -> None:
        if self.scale.dtype != np.float32 or self.scale.shape != self.zero_point.shape:
            raise InternalError(
                f"scale must be float32 and shaped like zero_point, got {self.scale.dtype} {self.scale.shape} "
                f"and {self.zero_point.shape}"
            )
        if self.zero_point.dtype != self.spec.qtype.dtype:
            raise InternalError(f"zero point is {self.zero_point.dtype}, the spec says {self.spec.qtype.name}")
        if self.scale.ndim != (0 if self.spec.axis is None else 1):
            raise InternalError(f"scale has shape {self.scale.shape}, which does not fit {self.spec.granularity}")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise InternalError("every scale must be positive and finite")

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest real value that a code can stand for (per tensor only)."""
        s, z = float(self.scale), int(self.zero_point)
        return s * (self.spec.lo - z), s * (self.spec.hi - z)

    def same_as(self, other: QParams) -> bool:
        """Equal spec and bit-equal numbers."""
        return (
            self.spec == other.spec
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )
