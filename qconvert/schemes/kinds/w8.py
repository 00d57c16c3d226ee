"""Weights of 8 bits, arithmetic in float (:mod:`qconvert.schemes.weight_only`)."""

from __future__ import annotations

from qconvert.schemes.scheme import SCHEMES, WEIGHT_CHOICES, Scheme
from qconvert.schemes.weight_only import WeightOnly

_KIND = WeightOnly(name="w8", bits=8)

SCHEMES.add(
    "w8",
    Scheme(
        name="w8",
        convert=_KIND.convert,
        least_opset=_KIND.least_opset,
        reads=WEIGHT_CHOICES - {"rounding"},
        check=_KIND.check,
    ),
)
