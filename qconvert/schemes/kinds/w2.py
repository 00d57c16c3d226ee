"""Weights of 2 bits, arithmetic in float (:mod:`qconvert.schemes.weight_only`)."""

from __future__ import annotations

from qconvert.schemes.scheme import SCHEMES, WEIGHT_CHOICES, Scheme
from qconvert.schemes.weight_only import WeightOnly

_KIND = WeightOnly(name="w2", bits=2)

SCHEMES.add(
    "w2",
    Scheme(
        name="w2",
        convert=_KIND.convert,
        least_opset=_KIND.least_opset,
        reads=WEIGHT_CHOICES,
        opset_for=_KIND.opset_for,
        check=_KIND.check,
    ),
)
