"""Recipe: every choice that decides the quantized model.

What is None there is left to the target (:mod:`qconvert.recipe.resolve`), which by default is this machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.errors import RecipeError
from qconvert.forms import FORMS
from qconvert.registry import suggest

FORMATS = ("qdq", "qoperator")
ACTIVATIONS = ("uint8", "int8", "uint16", "int16")
WEIGHTS = ("int8", "uint8", "int4")
DEFAULT_SCHEME = "int8"
# (activations, weights) of the schemes that calibrate; the first pair that the target takes is the default
STATIC_SCHEMES = {
    DEFAULT_SCHEME: tuple((a, w) for a in ("uint8", "int8") for w in ("int8", "uint8")),
    "a16w8": (("uint16", "int8"), ("int16", "int8")),
    "a16w4": (("uint16", "int4"), ("int16", "int4")),
}
WEIGHT_FORMATS = ("auto", "nbits", "qdq", "unpack")
# what an embedding table or the output matrix may be made of, where not of the scheme itself
PARTS = ("same", "w8", "float")
WHOLE_ROW = -1
BLOCKS = (WHOLE_ROW, 0, 16, 32, 64, 128, 256)
ACCURACY_LEVELS = (0, 1, 2, 3, 4)
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
        symmetric: symmetric ranges of activations, in weight-only schemes of weights; None: as the target prefers, of
            weights asymmetric.
        method: calibration method, a name in ``calibrate.methods``.
        recover: ("auto",) for the default chain of recovery passes, ("none",), or names in ``recover.passes``.
        effort: how much recovery may cost: "fast", "default" or "max" (``recover.effort``).
        placement: "measured" runs on integers what pays on this machine, by timing, and is "static" where the target is
            another; "static" what pays by the target's table; "all" whatever has an integer form at all; "pinned" all
            that the target runs as integers, but for ``pinned_float``.
        pinned_float: names of nodes that stay float under "pinned"; what an earlier run measured.
        forms: "PATTERN=FORM": nodes that are written in another form than between Q/DQ pairs (``forms``), or, as
            "plain", in none; the last that fits decides. Under "measured", timing decides for the rest.
        scheme: what to quantize to, a name in ``schemes.kinds``; ``format`` to ``placement`` but for ``symmetric`` are
            of int8.
        block: weights that share a scale in a weight-only scheme; -1: all of an output channel, 0: the scheme's choice.
        rounding: how weights get their codes there: "auto", or a name in ``rounding.methods``.
        weight_format: "nbits" (MatMulNBits and GatherBlockQuantized), "qdq" (DequantizeLinear), "unpack" (operators of
            ONNX that ONNX Runtime computes when it loads the model), or "auto".
        accuracy_level: of MatMulNBits: 1 computes in float, 4 rounds activations to 8 bits.
        embeddings, lm_head: what tables, and the product that makes an output, are stored in: "same" as the rest, "w8",
            or "float".
        keep_io: in half precision, inputs and outputs keep their types.
        mix: "PATTERN=SCHEME": other schemes for some nodes; the last that fits decides.
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
    forms: tuple[str, ...] = ()
    scheme: str = DEFAULT_SCHEME
    block: int = 0
    rounding: str = AUTO
    weight_format: str = AUTO
    accuracy_level: int = 4
    embeddings: str = PARTS[0]
    lm_head: str = PARTS[0]
    keep_io: bool = True
    mix: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, value, valid in (
            ("format", self.format, FORMATS),
            ("activations", self.activations, (None, *ACTIVATIONS)),
            ("weights", self.weights, (None, *WEIGHTS)),
            ("effort", self.effort, EFFORTS),
            ("placement", self.placement, PLACEMENTS),
            ("weight_format", self.weight_format, WEIGHT_FORMATS),
            ("embeddings", self.embeddings, PARTS),
            ("lm_head", self.lm_head, PARTS),
        ):
            if value not in valid:
                raise RecipeError(
                    f"{field} cannot be {value!r}", hint=suggest(str(value), [v for v in valid if v is not None])
                )
        for name, number, numbers in (
            ("block", self.block, BLOCKS),
            ("accuracy_level", self.accuracy_level, ACCURACY_LEVELS),
        ):
            if number not in numbers:
                raise RecipeError(f"{name} cannot be {number}", hint=f"valid: {', '.join(map(str, numbers))}")
        for entry in self.mix:
            if not all(entry.rpartition("=")):
                raise RecipeError(f"mix cannot hold {entry!r}", hint="write PATTERN=SCHEME, for example Gather=w8")
        for entry in self.forms:
            pattern, _, form = entry.rpartition("=")
            if not pattern or form not in FORMS:
                raise RecipeError(f"forms cannot hold {entry!r}", hint=f"write PATTERN=FORM; forms: {', '.join(FORMS)}")
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
