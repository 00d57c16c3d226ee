"""Static: activations of 16 bits, weights of 8 (:mod:`qconvert.schemes.wide`)."""

from __future__ import annotations

from qconvert.inputs import least_opset
from qconvert.plan.widths import of_scheme
from qconvert.schemes.scheme import SCHEMES, STATIC_CHOICES, Scheme
from qconvert.schemes.wide import check

SCHEMES.add(
    "a16w8",
    Scheme(
        name="a16w8",
        convert=None,
        least_opset=lambda recipe: least_opset(of_scheme(recipe, "a16w8")),
        reads=STATIC_CHOICES,
        check=check,
    ),
)
