"""Choices of the quantization scheme that cost time or accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from qconvert.diagnose.finding import CHECKS, Check, Finding, Severity, Subject
from qconvert.diagnose.integer_ops import FLOAT_OPS, PORTS, at, is_depthwise, is_signed, signed_activation
from qconvert.diagnose.isa import Isa
from qconvert.graph.optimized import origin
from qconvert.graph.view import GraphView, NodeView

# Two bits: the channel with the least weights has 32 steps or fewer on each side of zero.
_SPREAD = 4.0


def _signed(subject: Subject) -> Iterator[Finding]:
    """int8 activations on x86."""
    graph = subject.run
    found = [n.name for n in graph.nodes.values() if n.op_type in PORTS and signed_activation(graph, n)]
    found += [n.name for n in graph.nodes.values() if n.op_type in FLOAT_OPS and _reads_int8(graph, n)]
    if found and subject.isa is not Isa.OTHER:
        yield Finding(
            check="signed-activations",
            severity=Severity.WARNING,
            what="activations are int8 where ONNX Runtime could not turn them into uint8, which is what x86 is fast at",
            nodes=tuple(found),
            cost=subject.cost(found, "not timed")
            + "; with uint8 activations ResNet-50 took half the time, and MobileNetV2 60 % (measured elsewhere)",
            cure="use uint8 activations and int8 weights (qconvert's default)",
            share=subject.share(found),
        )


def _reads_int8(graph: GraphView, node: NodeView) -> bool:
    """Whether a float operator reads dequantized int8 activations."""
    dq = graph.producer(node.input(0) or "")
    if dq is None or dq.op_type != "DequantizeLinear" or graph.is_constant(dq.input(0)):
        return False
    return is_signed(graph, dq.input(2) or dq.input(0), default=False)


def _unsigned(subject: Subject) -> Iterator[Finding]:
    """uint8 weights on x86 with VNNI."""
    graph = subject.run
    weights = {n.name: at(n, PORTS[n.op_type].w) for n in graph.nodes.values() if n.op_type in PORTS}
    found = [
        name
        for name, weight in weights.items()
        if graph.is_constant(weight) and graph.tensors[weight or ""].dtype == "uint8"
    ]
    if found and subject.isa is Isa.VNNI:
        yield Finding(
            check="unsigned-weights",
            severity=Severity.WARNING,
            what="weights are uint8, which VNNI cannot multiply with uint8 activations",
            nodes=tuple(found),
            cost=subject.cost(found, "not timed")
            + "; with int8 weights a 3x3 convolution took a third of the time (measured elsewhere)",
            cure="use int8 weights with uint8 activations (qconvert's default); on x86 without VNNI uint8 weights have "
            "their use: they never saturate",
            share=subject.share(found),
        )


def _dynamic(subject: Subject) -> Iterator[Finding]:
    """ConvInteger: its input is quantized anew at every run, and its kernel is slow."""
    found = [n.name for n in subject.run.nodes.values() if n.op_type == "ConvInteger"]
    if found:
        yield Finding(
            check="dynamic-convolutions",
            severity=Severity.WARNING,
            what="convolutions are quantized dynamically (ConvInteger)",
            nodes=tuple(found),
            cost=subject.cost(found, "slower than in float (not timed)"),
            cure="quantize convolutions statically, with calibration data; dynamic quantization suits MatMul alone",
            share=subject.share(found),
        )


def _depthwise(subject: Subject) -> Iterator[Finding]:
    """One scale for all filters of a depthwise convolution, whose ranges differ most."""
    graph, found = subject.run, {}
    for node in graph.nodes.values():
        if node.op_type not in PORTS or PORTS[node.op_type].float_op != "Conv" or not is_depthwise(graph, node):
            continue
        ports = PORTS[node.op_type]
        weight, scale = at(node, ports.w), at(node, ports.w_scale)
        if weight is None or not graph.is_constant(weight):
            continue
        if scale is not None and (not graph.is_constant(scale) or graph.constant(scale).size > 1):
            continue
        steps = _steps(graph, node, weight)
        if steps and steps[1] / steps[0] >= _SPREAD:
            found[node.name] = steps
    if found:
        worst = min(found, key=lambda name: found[name][0] / found[name][1])
        least, most = found[worst]
        yield Finding(
            check="depthwise-scales",
            severity=Severity.WARNING,
            what="depthwise convolutions have one scale for all channels",
            nodes=tuple(sorted(found, key=lambda name: found[name][0] / found[name][1])),
            cost=f"ranges of channels differ up to {most / least:.0f} times: in {origin(worst)} the smallest channel "
            f"has {least} steps of {most}, {math.log2(most / least):.1f} bits lost (measured)",
            cure="give weights a scale for each channel (qconvert quantize --per-channel, the default)",
        )


def _steps(graph: GraphView, node: NodeView, weight: str) -> tuple[int, int] | None:
    """(least, greatest) over channels of the largest code's distance from zero; channels of zeros do not count."""
    codes = np.asarray(graph.constant(weight), np.int64)
    zero = at(node, PORTS[node.op_type].w_zero)
    if zero is not None and graph.is_constant(zero):
        codes = codes - int(np.asarray(graph.constant(zero), np.int64).reshape(-1)[0])
    most = np.abs(codes).reshape(codes.shape[0], -1).max(axis=1, initial=0)
    most = most[most > 0]
    return (int(most.min()), int(most.max())) if most.size else None


def _axes(subject: Subject) -> Iterator[Finding]:
    """Scales along the axis that a product sums over, which no integer kernel can take."""
    graph, found = subject.stored, []
    for node in graph.nodes.values():
        scale = node.input(1)
        if node.op_type != "DequantizeLinear" or not graph.is_constant(scale) or node.attr_int("block_size", 0):
            continue
        rank, many = graph.tensors[node.input(0) or ""].rank, graph.tensors[scale or ""].elements() > 1
        if rank is None or rank < 2 or not many:
            continue
        axis = node.attr_int("axis", 1) % rank
        for reader, port in graph.consumers(node.outputs[0]):
            if port == 1 and _summed(reader, rank) == axis:
                found.append(reader.name)
    if found:
        timed = [name for name in found if name in subject.times]
        yield Finding(
            check="summed-axis",
            severity=Severity.WARNING,
            what="weights have scales along the axis that the product sums over",
            nodes=tuple(found),
            cost=subject.cost(timed, "no integer kernel takes them: the product runs in float (not timed)")
            if timed
            else "no integer kernel takes them: the product runs in float",
            cure="put the scales along the output columns: axis 1 of a [K, N] weight, axis 0 of a transposed one",
            share=subject.share(timed),
        )


def _summed(reader: NodeView, rank: int) -> int | None:
    """The axis of a weight of ``rank`` that ``reader`` sums over; None where it is no product."""
    if reader.op_type == "MatMul":
        return rank - 2
    if reader.op_type == "Gemm":
        return 1 if reader.attr_int("transB", 0) else 0
    return 1 if reader.op_type == "Conv" else None


CHECKS.add("signed-activations", Check(title="int8 activations on x86", run=_signed))
CHECKS.add("unsigned-weights", Check(title="uint8 weights on x86 with VNNI", run=_unsigned))
CHECKS.add("dynamic-convolutions", Check(title="dynamically quantized convolutions", run=_dynamic))
CHECKS.add("depthwise-scales", Check(title="depthwise convolutions with one scale", run=_depthwise))
CHECKS.add("summed-axis", Check(title="scales along the axis that a product sums over", run=_axes))
