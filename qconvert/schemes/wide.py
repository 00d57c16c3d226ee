"""Static schemes with 16-bit activations: the pipeline of int8 with other types.

They are for processors with 16-bit integers, such as Qualcomm's. ONNX Runtime's CPU provider reads them (1.32:
QuantizeLinear and DequantizeLinear of uint16, int16 and int4 from opset 21 on) and fuses none: it computes in float
between the conversions, so their accuracy can be measured here, and their speed cannot.
"""

from __future__ import annotations

from qconvert.errors import RecipeError
from qconvert.recipe.recipe import Recipe


def check(recipe: Recipe) -> None:
    """Refuse what 16-bit activations do not go with.

    Raises:
        RecipeError: with the nearest that works.
    """
    if recipe.format != "qdq":
        raise RecipeError(
            f"--scheme {recipe.scheme} has one form: QOperator has no operators for 16-bit activations",
            hint="leave --format out, or use --scheme int8",
        )
