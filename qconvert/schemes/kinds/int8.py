"""Static int8: the pipeline that calibrates activations (:mod:`qconvert.pipeline`)."""

from __future__ import annotations

from qconvert.inputs import least_opset
from qconvert.plan.widths import of_scheme
from qconvert.schemes.scheme import SCHEMES, STATIC_CHOICES, Scheme

SCHEMES.add(
    "int8",
    Scheme(
        name="int8",
        convert=None,
        least_opset=lambda recipe: least_opset(of_scheme(recipe, "int8")),
        reads=STATIC_CHOICES,
    ),
)
