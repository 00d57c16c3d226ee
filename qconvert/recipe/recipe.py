"""Recipe: every choice that decides the quantized model.

What is None there is left to the target (:mod:`qconvert.recipe.resolve`), which by default is this machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.errors import RecipeError
from qconvert.registry import suggest

FORMATS = ("qdq", "qoperator")
ACTIVATIONS = ("uint8", "int8")
WEIGHTS = ("int8", "uint8")
MEASURED, STATIC, ALL, PINNED = "measured", "static", "all", "pinned"
PLACEMENTS = (MEASURED, STATIC, ALL, PINNED)
# for each scale the best of three, on seven real models never worse than min-max (docs/decisions/0010)
DEFAULT_METHOD = "auto"
AUTO, NO_RECOVERY = "auto", "none"
EFFORTS = ("fast", "default", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to make of a model.

    Attributes:
        target: name of the runtime and processor ("x86-vnni"), or "auto": this machine.
        format: "qdq" (QuantizeLinear/DequantizeLinear pairs) or "qoperator" (QLinearConv and the like).
        per_channel: one weight scale for each output channel, or one for the whole tensor; None: as the target prefers.
        activations, weights: integer types; None: as the target prefers.
        symmetric: symmetric activation ranges; None: as the target prefers.
        method: calibration method, a name in ``calibrate.methods``.
        recover: ("auto",) for the default chain of recovery passes, ("none",), or names in ``recover.passes``.
        effort: how much recovery may cost: "fast", "default" or "max" (``recover.effort``).
        placement: "measured" runs on integers what pays on this machine, by timing, and is "static" where the target is
            another; "static" what pays by the target's table; "all" whatever has an integer form at all; "pinned" all
            that the target runs as integers, but for ``pinned_float``.
        pinned_float: names of nodes that stay float under "pinned"; what an earlier run measured.
        include, exclude: node names, globs or operator types that alone may (or must not) be quantized.
    """

    target: str = AUTO
    format: str = "qdq"
    per_channel: bool | None = None
    activations: str | None = None
    weights: str | None = None
    symmetric: bool | None = None
    method: str = DEFAULT_METHOD
    recover: tuple[str, ...] = (AUTO,)
    effort: str = "default"
    placement: str = MEASURED
    pinned_float: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, value, valid in (
            ("format", self.format, FORMATS),
            ("activations", self.activations, (None, *ACTIVATIONS)),
            ("weights", self.weights, (None, *WEIGHTS)),
            ("effort", self.effort, EFFORTS),
            ("placement", self.placement, PLACEMENTS),
        ):
            if value not in valid:
                raise RecipeError(
                    f"{field} cannot be {value!r}", hint=suggest(str(value), [v for v in valid if v is not None])
                )
        if self.pinned_float and self.placement != PINNED:
            raise RecipeError(
                f"pinned_float means nothing with placement {self.placement}",
                hint=f"write `placement: {PINNED}`, or leave pinned_float out",
            )
        if not self.recover or (len(self.recover) > 1 and {AUTO, NO_RECOVERY} & set(self.recover)):
            raise RecipeError(
                f"recover cannot be {', '.join(self.recover) or 'empty'}",
                hint=f"give {AUTO}, {NO_RECOVERY}, or the names of passes alone",
            )
        if self.format == "qoperator" and self.activations == "int8" and self.weights == "uint8":
            raise RecipeError(
                "ONNX Runtime has no integer kernels for int8 activations with uint8 weights",
                hint="use int8 weights, or uint8 activations",
            )
