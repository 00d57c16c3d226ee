"""What is float still: weights in the file, operators that run, weights that are unpacked at every run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qconvert.diagnose.finding import CHECKS, Check, Finding, Severity, Subject
from qconvert.diagnose.integer_ops import FLOAT_OPS, reads_wide
from qconvert.graph.view import GraphView, NodeView

_FLOATS = {"float32": 4, "float64": 8}
# Operators whose constant operands are weights.
_WEIGHTED = (*FLOAT_OPS, "Gather", "LSTM", "GRU", "RNN", "Attention", "EmbedLayerNormalization")
# Smaller constants are scales, biases and shapes.
_LEAST_ELEMENTS = 256
# Weights, or time, below this part of the whole are not worth a change of the model.
_SMALL_SHARE = 0.1


def _float_weights(subject: Subject) -> Iterator[Finding]:
    """Float constants that weighted operators read, from the file."""
    graph = subject.stored
    plain: dict[str, int] = {}
    late: dict[str, int] = {}
    for name, tensor in graph.tensors.items():
        if tensor.dtype not in _FLOATS or not graph.is_constant(name) or tensor.elements() < _LEAST_ELEMENTS:
            continue
        readers = {node.op_type for node, _ in graph.consumers(name)}
        size = tensor.elements() * _FLOATS[tensor.dtype]
        if "QuantizeLinear" in readers:
            late[name] = size
        elif readers & set(_WEIGHTED):
            plain[name] = size
    for found, what, cure in (
        (
            plain,
            "weights are float in the file",
            "quantize the operators that read them; qconvert inspect of the FP32 model says why some cannot be",
        ),
        (
            late,
            "weights are float in the file and quantized each time that the model is loaded",
            "store the integers: fold QuantizeLinear of constants (quantizing the FP32 model with qconvert does)",
        ),
    ):
        total = sum(found.values())
        if total:
            saved = sum(size - size // _FLOATS[graph.tensors[name].dtype] for name, size in found.items())
            share = total / max(subject.constant_bytes, total)
            yield Finding(
                check="float-weights",
                severity=Severity.WARNING if share >= _SMALL_SHARE else Severity.NOTE,
                what=what,
                nodes=tuple(sorted(found, key=lambda name: -found[name])),
                cost=f"{total:,} bytes, {100 * share:.0f} % of all constants; as 8-bit integers {saved:,} less",
                cure=cure,
                bytes=saved,
            )


def _dequantizes_constant(graph: GraphView, node: NodeView) -> bool:
    return node.op_type == "DequantizeLinear" and graph.is_constant(node.input(0))


def _float_operators(subject: Subject) -> Iterator[Finding]:
    """Weighted operators in float: those with quantized inputs were meant to be fused, the others were left alone."""
    graph = subject.run
    unfused: list[str] = []
    alone: list[str] = []
    for node in graph.nodes.values():
        if node.op_type not in FLOAT_OPS or reads_wide(graph, node):
            continue
        sources = [graph.producer(name or "") for name in node.inputs]
        if any(s is not None and s.op_type == "DequantizeLinear" for s in sources[:2]):
            if node.op_type != "ConvTranspose":  # which has no integer form to be fused into
                unfused.append(node.name)
        elif graph.is_constant(node.input(1)):
            alone.append(node.name)
    if unfused:
        yield Finding(
            check="unfused",
            severity=Severity.WARNING,
            what="operators with quantized inputs run in float all the same: ONNX Runtime did not fuse them",
            nodes=tuple(unfused),
            cost=subject.cost(unfused, "float time plus that of the conversions (not timed)"),
            cure="ONNX Runtime fuses activations with one constant scale, weights with zero point 0 and a scale for "
            "each output channel, and an int32 bias of scale s_x * s_w; mend what differs, or leave the operator in "
            "float without conversions",
            share=subject.share(unfused),
        )
    if alone:
        share = subject.share(alone)
        yield Finding(
            check="float-operators",
            severity=Severity.WARNING if share >= 2 * _SMALL_SHARE else Severity.NOTE,
            what="operators with constant weights were left in float",
            nodes=tuple(alone),
            cost=subject.cost(alone, "not timed"),
            cure="quantize them, unless they are float for accuracy or speed: qconvert bench compares",
            share=share,
        )


def _unpacked(subject: Subject) -> Iterator[Finding]:
    """DequantizeLinear of constants that ONNX Runtime neither fuses nor folds."""
    graph = subject.run
    found = [n for n in graph.nodes.values() if _dequantizes_constant(graph, n) and not _for_wide(graph, n)]
    if not found:
        return
    names = [n.name for n in found]
    share = subject.share(names)
    small = bool(subject.times) and share < _SMALL_SHARE
    total = sum(graph.tensors[n.input(0) or ""].elements() for n in found)
    readers = sorted({r.op_type for n in found for r, _ in graph.consumers(n.outputs[0])})
    yield Finding(
        check="unpacked-weights",
        severity=Severity.NOTE if small else Severity.WARNING,
        what=f"integer weights of {', '.join(readers)} are turned into float at every run",
        nodes=tuple(names),
        cost=f"{total:,} weights; {subject.cost(names, 'not timed')}",
        cure="give the operator a form that ONNX Runtime fuses (see 'unfused'), or store its weights in float if speed "
        "matters more than size",
        share=share,
        bytes=int(np.int64(total) * 4),
    )


def _for_wide(graph: GraphView, node: NodeView) -> bool:
    return all(reads_wide(graph, reader) for reader, _ in graph.consumers(node.outputs[0]))


CHECKS.add("float-weights", Check(title="weights that are float in the file", run=_float_weights))
CHECKS.add("float-operators", Check(title="weighted operators that run in float", run=_float_operators))
CHECKS.add("unpacked-weights", Check(title="weights that are unpacked at every run", run=_unpacked))
