"""Weights as one of 16 values, fitted by k-means (:mod:`qconvert.schemes.nonuniform`)."""

from __future__ import annotations

from qconvert.schemes.nonuniform import NonUniform
from qconvert.schemes.scheme import SCHEMES, WEIGHT_CHOICES, Scheme

_KIND = NonUniform(name="palette:16", bits=4)

SCHEMES.add(
    "palette:16",
    Scheme(
        name="palette:16",
        convert=_KIND.convert,
        least_opset=lambda recipe: 13,
        reads=WEIGHT_CHOICES - {"accuracy_level"},
        check=_KIND.check,
    ),
)
