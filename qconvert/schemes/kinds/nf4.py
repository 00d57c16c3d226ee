"""4-bit weights on quantiles of a normal distribution, arithmetic in float (:mod:`qconvert.schemes.nonuniform`)."""

from __future__ import annotations

from qconvert.emit.decoded_weights import NF4_TYPE
from qconvert.numerics.codebooks import NF4
from qconvert.schemes.nonuniform import NonUniform
from qconvert.schemes.scheme import SCHEMES, WEIGHT_CHOICES, Scheme

_KIND = NonUniform(name="nf4", bits=4, book=NF4, bnb4=NF4_TYPE)

SCHEMES.add(
    "nf4",
    Scheme(
        name="nf4",
        convert=_KIND.convert,
        least_opset=lambda recipe: 13,
        reads=WEIGHT_CHOICES - {"accuracy_level"},
        check=_KIND.check,
    ),
)
