"""Signs of weights, arithmetic in float (:mod:`qconvert.schemes.nonuniform`)."""

from __future__ import annotations

from qconvert.numerics.codebooks import BINARY
from qconvert.schemes.nonuniform import NonUniform
from qconvert.schemes.scheme import SCHEMES, WEIGHT_CHOICES, Scheme

_KIND = NonUniform(name="binary", bits=1, book=BINARY)

SCHEMES.add(
    "binary",
    Scheme(
        name="binary",
        convert=_KIND.convert,
        least_opset=lambda recipe: 13,
        reads=WEIGHT_CHOICES - {"accuracy_level"},
        check=_KIND.check,
    ),
)
