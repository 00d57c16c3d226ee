"""Weights of 4 bits, arithmetic in float (:mod:`qconvert.schemes.weight_only`)."""

from __future__ import annotations

from qconvert.schemes.scheme import SCHEMES, WEIGHT_CHOICES, Scheme
from qconvert.schemes.weight_only import WeightOnly

_KIND = WeightOnly(name="w4", bits=4)

SCHEMES.add(
    "w4",
    Scheme(
        name="w4",
        convert=_KIND.convert,
        least_opset=_KIND.least_opset,
        reads=WEIGHT_CHOICES,
        opset_for=_KIND.opset_for,
        check=_KIND.check,
    ),
)
