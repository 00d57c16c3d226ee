"""4-bit floating-point weights, arithmetic in float (:mod:`qconvert.schemes.nonuniform`)."""

from __future__ import annotations

from qconvert.emit.decoded_weights import FP4_TYPE
from qconvert.numerics.codebooks import FP4
from qconvert.schemes.nonuniform import NonUniform
from qconvert.schemes.scheme import SCHEMES, WEIGHT_CHOICES, Scheme

_KIND = NonUniform(name="fp4", bits=4, book=FP4, bnb4=FP4_TYPE)

SCHEMES.add(
    "fp4",
    Scheme(
        name="fp4",
        convert=_KIND.convert,
        least_opset=lambda recipe: 13,
        reads=WEIGHT_CHOICES - {"accuracy_level"},
        check=_KIND.check,
    ),
)
