"""Where the outputs of a model are compared: before a last Softmax, Sigmoid or ArgMax.

These squash: between probabilities an error shows only where the model is undecided, so a mean over samples hangs on
the few that are, and between indices it shows as all or nothing. What they read is as good a witness on every sample.
"""

from __future__ import annotations

import onnx_ir as ir

from qconvert.graph.model import Model
from qconvert.graph.prepare.widen import HALVES

_SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "ArgMax", "ArgMin")

# What may stand between a squashing operator and the output.
_PASSING = (
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast"),
    *("QuantizeLinear", "DequantizeLinear"),
)


def before_squashing(model: Model) -> Model:
    """A copy of ``model`` whose outputs are what its squashing operators read; other float outputs stay, 16-bit ones as
    the float32 that they are made of, and others go.

    Models of one structure, quantize-dequantize pairs aside, get outputs that correspond, in the same order.
    """
    copy = model.clone()
    outputs: list[ir.Value] = []
    for output in copy.ir.graph.outputs:
        value = _squashed(output) or _in_float32(output)
        if value not in outputs and (value is not output or value.type in (None, ir.TensorType(ir.DataType.FLOAT))):
            outputs.append(value)
    copy.ir.graph.outputs[:] = outputs
    return copy


def squashes(model: Model) -> bool:
    """Whether a squashing operator makes one of the outputs."""
    return any(_squashed(output) is not None for output in model.ir.graph.outputs)


def as_squashed(model: Model) -> Model:
    """A copy of ``model`` with the float outputs that its user gets, 16-bit ones as the float32 they are made of."""
    copy = model.clone()
    found = [_in_float32(output) for output in copy.ir.graph.outputs]
    copy.ir.graph.outputs[:] = [v for v in found if v.type in (None, ir.TensorType(ir.DataType.FLOAT))]
    return copy


def _in_float32(output: ir.Value) -> ir.Value:
    """What is cast to a 16-bit float for the ``output`` of a model that was widened; any other output itself."""
    node = output.producer()
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return output
    return node.inputs[0] if node.attributes.get_int("to", 0) in HALVES else output


def _squashed(output: ir.Value) -> ir.Value | None:
    """What the squashing operator behind ``output`` reads, None where there is none."""
    value: ir.Value | None = output
    while value is not None and (node := value.producer()) is not None and node.domain in ("", "ai.onnx"):
        if node.op_type in _SQUASHING:
            return node.inputs[0]
        value = node.inputs[0] if node.op_type in _PASSING else None
    return None
