"""Integer types of quantized tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.errors import RecipeError
from qconvert.registry import suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class QType:
    """An integer type that QuantizeLinear can produce.

    Attributes:
        name: as users write it, "uint8".
        bits: width in bits.
        lo, hi: least and greatest code.
        onnx_code: TensorProto.DataType value.
        min_opset: least ai.onnx opset whose Q/DQ operators take the type.
    """

    name: str
    bits: int
    lo: int
    hi: int
    onnx_code: int
    min_opset: int

    @property
    def signed(self) -> bool:
        """Whether codes can be negative."""
        return self.lo < 0

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy type that stores one code; of 4 bits, which numpy does not know, int8."""
        return np.dtype(self.name if self.bits >= 8 else "int8")


UINT8 = QType(name="uint8", bits=8, lo=0, hi=255, onnx_code=2, min_opset=10)
INT8 = QType(name="int8", bits=8, lo=-128, hi=127, onnx_code=3, min_opset=10)
INT4 = QType(name="int4", bits=4, lo=-8, hi=7, onnx_code=22, min_opset=21)
UINT16 = QType(name="uint16", bits=16, lo=0, hi=65535, onnx_code=4, min_opset=21)
INT16 = QType(name="int16", bits=16, lo=-32768, hi=32767, onnx_code=5, min_opset=21)
INT32 = QType(name="int32", bits=32, lo=-(2**31), hi=2**31 - 1, onnx_code=6, min_opset=10)

_BY_NAME = {t.name: t for t in (INT4, UINT8, INT8, UINT16, INT16, INT32)}


def qtype(name: str) -> QType:
    """The type called ``name`` ("uint8", "int8", "uint16").

    Raises:
        RecipeError: no such type.
    """
    if name not in _BY_NAME:
        raise RecipeError(f"unknown integer type {name!r}", hint=suggest(name, sorted(_BY_NAME)))
    return _BY_NAME[name]
