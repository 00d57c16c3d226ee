"""Half precision: float16 weights and arithmetic (:mod:`qconvert.schemes.half`)."""

from __future__ import annotations

from qconvert.schemes.half import Half
from qconvert.schemes.scheme import SCHEMES, Scheme

SCHEMES.add(
    "fp16",
    Scheme(
        name="fp16",
        convert=Half(name="fp16", arithmetic=True).convert,
        least_opset=lambda recipe: 13,
    ),
)
