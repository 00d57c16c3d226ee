"""Convolutions and Gemms that the plan keeps float, kept float in ONNX Runtime too.

    DequantizeLinear -> Conv(float weight) -> QuantizeLinear

is a pattern that ONNX Runtime rewrites when it loads the model (WeightBiasQuantization): it quantizes the weight, with
one scale for the whole tensor. What was excluded then runs on integers all the same; where there is no integer kernel
(ConvTranspose), the weight is unpacked at every run. It looks through Relu and Clip, and through whatever moves a
QuantizeLinear up or a DequantizeLinear down. A Sum of one operand before the QuantizeLinear hides the pattern for the
price of one copy; no optimization removes it.

Measured with ONNX Runtime 1.31.1: an outlier channel 50 times the others moved the result of such a Conv by 57 quanta.
"""

from __future__ import annotations

import onnx_ir as ir

from qconvert.graph.edit import constant_of

_REWRITTEN = frozenset({"Conv", "ConvTranspose", "Gemm"})
_SEEN_THROUGH = frozenset(
    "Relu Clip LeakyRelu Reshape Transpose Squeeze Unsqueeze Slice MaxPool Flatten Dropout Identity".split()
)


def keep_float(graph: ir.Graph) -> None:
    """Hide every float Conv, ConvTranspose and Gemm between integers from ONNX Runtime, in place."""
    for node in list(graph):
        if node.op_type in _REWRITTEN and _is_constant(node.inputs[1]) and reads_codes(node.inputs[0]):
            hide(graph, node.outputs[0])


def _is_constant(value: ir.Value | None) -> bool:
    """Whether ONNX Runtime knows ``value`` when it loads the model: a constant, or unpacked from some."""
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type not in ("Cast", "Sub", "Mul", "Transpose", "Reshape", "Slice"):
        return constant_of(value) is not None
    return all(map(_is_constant, producer.inputs))


def reads_codes(value: ir.Value | None) -> bool:
    """Whether ``value`` is dequantized, as far as ONNX Runtime looks through operators."""
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type in _SEEN_THROUGH:
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def hide(graph: ir.Graph, value: ir.Value) -> None:
    """Let every QuantizeLinear that reads ``value`` read a copy."""
    for use in list(value.uses()):
        if use.node.op_type in _SEEN_THROUGH and use.idx == 0:
            hide(graph, use.node.outputs[0])
        elif use.node.op_type == "QuantizeLinear" and use.idx == 0:
            copy_result(graph, value, use.node)


def copy_result(graph: ir.Graph, value: ir.Value, reader: ir.Node) -> None:
    """Let ``reader`` have a copy of ``value`` as its first input, which no optimization removes."""
    copy = ir.node("Sum", [value], name=f"{value.name}_Sum")
    copy.outputs[0].name = f"{value.name}_copy"
    graph.insert_before(reader, copy)
    reader.replace_input_with(0, copy.outputs[0])
