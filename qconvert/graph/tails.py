"""Where the outputs of a model are compared: before a last Softmax, Sigmoid or ArgMax.

These squash: between probabilities an error shows only where the model is undecided, so a mean over samples hangs on
the few that are, and between indices it shows as all or nothing. What they read is as good a witness on every sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from qconvert.graph.model import Model
from qconvert.graph.prepare.widen import HALVES

# What float32 is cast to for outputs alone.
_OTHER_FLOATS = (*HALVES, ir.DataType.DOUBLE)

_SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "ArgMax", "ArgMin")

_PAIRS = ("QuantizeLinear", "DequantizeLinear")
# What may stand between a squashing operator and the output.
_PASSING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast", *_PAIRS)
_WIDENING = (*_PASSING, "Expand")


def before_squashing(model: Model) -> Model:
    """A copy of ``model`` whose outputs are what its squashing operators read; other float outputs stay, 16-bit and
    64-bit ones as the float32 that they are made of, and others go. Where that leaves none, the last floats that the
    outputs are made of are taken: what a TopK reads whose indices are the only output.

    Models of one structure, quantize-dequantize pairs aside, get outputs that correspond, in the same order.
    """
    copy = model.clone()
    copy.ir.graph.outputs[:] = _unsquashed(copy.ir.graph)
    return copy


def squashes(model: Model) -> bool:
    """Whether a squashing operator makes one of the outputs."""
    return any(_squashed(output) is not None for output in model.ir.graph.outputs)


def as_squashed(model: Model) -> Model:
    """A copy of ``model`` with the float outputs that its user gets, 16-bit and 64-bit ones as the float32 they are
    made of; without any, with the last floats."""
    copy = model.clone()
    copy.ir.graph.outputs[:] = _as_given(copy.ir.graph)
    return copy


def both_sides(model: Model) -> tuple[Model, tuple[tuple[int, ...], ...]]:
    """(a copy of ``model`` with the outputs of both :func:`before_squashing` and :func:`as_squashed`, the numbers of
    each); the same numbers are not there twice."""
    copy = model.clone()
    sides = _unsquashed(copy.ir.graph), _as_given(copy.ir.graph)
    outputs = list(dict.fromkeys(v for side in sides for v in side))
    copy.ir.graph.outputs[:] = outputs
    return copy, tuple(dict.fromkeys(tuple(outputs.index(v) for v in side) for side in sides))


def _unsquashed(graph: ir.Graph) -> list[ir.Value]:
    found: list[ir.Value] = []
    for output in graph.outputs:
        value = _squashed(output) or _in_float32(output)
        if value not in found and (value is not output or _is_float32(value)):
            found.append(value)
    return found or _last_floats(graph)


def _as_given(graph: ir.Graph) -> list[ir.Value]:
    found = dict.fromkeys(_in_float32(output) for output in graph.outputs)
    return [v for v in found if _is_float32(v)] or _last_floats(graph)


def _in_float32(output: ir.Value) -> ir.Value:
    """The float32 that is cast to another float for ``output``, as in a model that was widened; any other itself."""
    node = output.producer()
    if node is None or node.op_type != "Cast" or node.inputs[0] is None or not _is_float32(node.inputs[0]):
        return output
    return node.inputs[0] if node.attributes.get_int("to", 0) in _OTHER_FLOATS else output


def _is_float32(value: ir.Value) -> bool:
    """Also of what was added to a model, which has no type."""
    return value.type in (None, ir.TensorType(ir.DataType.FLOAT))


def _last_floats(graph: ir.Graph) -> list[ir.Value]:
    """The float32 results that are nearest to the outputs."""
    found: dict[ir.Value, None] = {}
    seen: set[ir.Value] = set()
    ahead = list(graph.outputs)
    while ahead:
        value = ahead.pop(0)
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        if _is_float32(value):
            found[value] = None
        else:
            ahead += [v for v in node.inputs if v is not None]
    return list(found)


def _squashed(output: ir.Value) -> ir.Value | None:
    """What the squashing operator behind ``output`` reads, None where there is none."""
    value: ir.Value | None = output
    while value is not None and (node := value.producer()) is not None and node.domain in ("", "ai.onnx"):
        if node.op_type in _SQUASHING:
            return node.inputs[0]
        if node.op_type == "Div":
            return _exponents(node)
        value = node.inputs[0] if node.op_type in _PASSING else None
    return None


def _exponents(quotient: ir.Node) -> ir.Value | None:
    """x where ``quotient`` is exp(x) / sum exp(x), a Softmax of several operators."""
    powers, total = (_maker(v, passing) for v, passing in zip(quotient.inputs, (_PAIRS, _WIDENING), strict=True))
    if powers is None or powers.op_type != "Exp" or total is None or total.op_type != "ReduceSum":
        return None
    return powers.inputs[0] if _maker(total.inputs[0], _PAIRS) is powers else None


def _maker(value: ir.Value | None, passing: Sequence[str]) -> ir.Node | None:
    """The node that makes ``value``, but for operators that pass it on."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in passing:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node
