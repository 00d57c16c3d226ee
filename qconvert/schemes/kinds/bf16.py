"""Half precision: bfloat16 weights, float32 arithmetic (:mod:`qconvert.schemes.half`)."""

from __future__ import annotations

from qconvert.schemes.half import Half
from qconvert.schemes.scheme import SCHEMES, Scheme

SCHEMES.add(
    "bf16",
    Scheme(
        name="bf16",
        convert=Half(name="bf16", arithmetic=False).convert,
        least_opset=lambda recipe: 13,
    ),
)
