"""The operators of ONNX and ONNX Runtime that multiply integer codes: where their parts are, and what they compute.

They are what ONNX Runtime's optimized graph holds, so that models in QDQ, QOperator and dynamic form look alike here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.integer_products import conv_sums, matmul_sums
from qconvert.numerics.saturation import Order, unsafe_channels
from qconvert.ops import OPS

Array = NDArray[np.generic]
_Part = Callable[[int], Array | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Input ports of an integer operator; -1 where it has no such part.

    Attributes:
        float_op: the operator that it stands for.
        a, a_scale, a_zero: activation.
        w, w_scale, w_zero: weight.
        bias: int32 where the result is quantized or a QGemm, else float.
        y_scale, y_zero: result.
        saturates: whether its kernel adds in 16 bits on x86 without VNNI.
    """

    float_op: str
    a: int = 0
    a_scale: int = -1
    a_zero: int = -1
    w: int
    w_scale: int = -1
    w_zero: int = -1
    bias: int = -1
    y_scale: int = -1
    y_zero: int = -1
    saturates: bool = True


PORTS: Mapping[str, Ports] = {
    "QLinearConv": Ports(float_op="Conv", a_scale=1, a_zero=2, w=3, w_scale=4, w_zero=5, y_scale=6, y_zero=7, bias=8),
    "ConvInteger": Ports(float_op="Conv", w=1, a_zero=2, w_zero=3, saturates=False),
    "QLinearMatMul": Ports(float_op="MatMul", a_scale=1, a_zero=2, w=3, w_scale=4, w_zero=5, y_scale=6, y_zero=7),
    "QGemm": Ports(float_op="Gemm", a_scale=1, a_zero=2, w=3, w_scale=4, w_zero=5, bias=6, y_scale=7, y_zero=8),
    "MatMulInteger": Ports(float_op="MatMul", w=1, a_zero=2, w_zero=3),
    "MatMulIntegerToFloat": Ports(float_op="MatMul", w=1, a_scale=2, w_scale=3, a_zero=4, w_zero=5, bias=6),
    "DynamicQuantizeMatMul": Ports(float_op="MatMul", w=1, w_scale=2, w_zero=3, bias=4),
}

FLOAT_OPS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def at(node: NodeView, port: int) -> str | None:
    """The tensor at ``port``, None where there is none; an empty name is none."""
    return (node.input(port) or None) if port >= 0 else None


def is_signed(graph: GraphView, tensor: str | None, *, default: bool) -> bool:
    """Whether ``tensor`` holds int8; ``default`` when its type is unknown."""
    dtype = graph.tensors[tensor].dtype if tensor is not None and tensor in graph.tensors else ""
    return default if not dtype else dtype == "int8"


def is_wide(graph: GraphView, node: NodeView | None) -> bool:
    """Whether a QuantizeLinear or DequantizeLinear of an activation has codes of 16 bits."""
    if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return False
    held = node.input(2) or (node.outputs[0] if node.op_type == "QuantizeLinear" else node.input(0))
    return held is not None and held in graph.tensors and graph.tensors[held].dtype in ("int16", "uint16")


def reads_wide(graph: GraphView, node: NodeView) -> bool:
    """Whether an operator reads dequantized codes of 16 bits."""
    return any(is_wide(graph, graph.producer(name)) for name in node.inputs if name)


def signed_activation(graph: GraphView, node: NodeView) -> bool:
    """Whether the activation of an integer node is int8."""
    ports = PORTS[node.op_type]
    known = at(node, ports.a_zero) if ports.a_zero >= 0 else None
    return is_signed(graph, known or (at(node, ports.a) if ports.a_zero >= 0 else None), default=False)


def is_depthwise(graph: GraphView, node: NodeView) -> bool:
    """Whether a convolution has a filter of its own for every channel."""
    shape = graph.tensors[node.inputs[PORTS[node.op_type].w] or ""].shape or ()
    return node.attr_int("group", 1) > 1 and len(shape) > 2 and shape[1] == 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Saturable:
    """An integer node that adds in 16 bits on x86 without VNNI.

    Attributes:
        node: its name.
        channels: output channels.
        unsafe: how many of them can saturate.
    """

    node: str
    channels: int
    unsafe: int


def saturable(graph: GraphView, node: NodeView) -> Saturable | None:
    """How far ``node`` can saturate; None where it never adds in 16 bits."""
    ports = PORTS.get(node.op_type)
    weight = at(node, ports.w) if ports is not None else None
    if ports is None or not ports.saturates or not graph.is_constant(weight) or signed_activation(graph, node):
        return None
    codes = graph.constant(weight or "")
    order = _order(node, codes) if codes.dtype == np.int8 else None
    if order is None or not order.size:
        return None
    unsafe = unsafe_channels(np.asarray(codes, np.int8), order)
    return Saturable(node=node.name, channels=len(unsafe), unsafe=int(unsafe.sum()))


def _order(node: NodeView, codes: Array) -> Order | None:
    rule = OPS.find(PORTS[node.op_type].float_op)
    if rule is None or rule.weight_order is None:
        return None
    integers = {name: node.attr_int(name, 0) for name, value in node.attributes.items() if isinstance(value, int)}
    return rule.weight_order(codes.shape, integers)


def compute(node: NodeView, inputs: tuple[Array | None, ...], *, saturate: bool) -> Array:
    """The result of an integer node.

    Args:
        node: one of ``PORTS``.
        inputs: its inputs' values, None where absent.
        saturate: as x86 without VNNI computes it; else exactly.

    Raises:
        InternalError: it has a form that no kernel takes.
    """
    ports = PORTS[node.op_type]

    def part(port: int) -> Array | None:
        return inputs[port] if 0 <= port < len(inputs) else None

    a, w = part(ports.a), part(ports.w)
    if a is None or w is None:
        raise InternalError(f"{node.name} lacks an operand")
    scale, zero = part(ports.a_scale), part(ports.a_zero)
    if node.op_type == "DynamicQuantizeMatMul":
        a, scale, zero = _quantized(np.asarray(a, np.float32))
    if node.attr_int("transA", 0):
        a = np.swapaxes(a, -1, -2)
    if node.attr_int("transB", 0):
        w = np.swapaxes(w, -1, -2)
    zero_a = 0 if zero is None else int(np.asarray(zero).reshape(-1)[0])
    zero_w = np.asarray(0 if part(ports.w_zero) is None else part(ports.w_zero), np.int64)
    saturate = saturate and ports.saturates and w.dtype == np.int8 and a.dtype == np.uint8
    codes_a, codes_w = np.asarray(a, np.int64), np.asarray(w, np.int64)
    if ports.float_op == "Conv":
        sums = _conv(node, codes_a, codes_w, zero_a, zero_w.reshape(-1) if zero_w.ndim else zero_w, saturate)
    else:
        sums = matmul_sums(codes_a, codes_w, zero_a, zero_w, saturate=saturate)
    if scale is None:
        return sums.astype(np.int32)
    return _scaled(node, ports, sums, np.asarray(scale, np.float32), part)


def _scaled(node: NodeView, ports: Ports, sums: NDArray[np.int64], scale: NDArray[np.float32], part: _Part) -> Array:
    """Bias, scale and the rounding of the result."""
    shape = (-1, *(1,) * (sums.ndim - 2)) if ports.float_op == "Conv" else (-1,)
    w_scale = np.asarray(part(ports.w_scale), np.float32).reshape(-1)
    factor = np.asarray(scale.reshape(-1)[0] * w_scale * np.float32(node.attr_float("alpha", 1.0)), np.float32)
    bias, y_scale, y_zero = part(ports.bias), part(ports.y_scale), part(ports.y_zero)
    integer_bias = bias is not None and bias.dtype.kind == "i"
    if bias is not None and integer_bias:
        sums = sums + np.asarray(bias, np.int64).reshape(shape if ports.float_op == "Conv" else bias.shape)
    if y_scale is None:
        real = sums.astype(np.float32) * factor.reshape(shape)
        return real if bias is None or integer_bias else real + np.asarray(bias, np.float32)
    factor = factor / np.asarray(y_scale, np.float32).reshape(-1)[0]
    dtype = np.dtype(np.int8) if y_zero is not None and y_zero.dtype == np.int8 else np.dtype(np.uint8)
    offset = 0 if y_zero is None else int(y_zero.reshape(-1)[0])
    limits = np.iinfo(np.int8 if dtype == np.int8 else np.uint8)
    rounded = np.rint(sums.astype(np.float32) * factor.reshape(shape)) + offset
    return np.asarray(np.clip(rounded, limits.min, limits.max), dtype)


def _conv(
    node: NodeView,
    a: NDArray[np.int64],
    w: NDArray[np.int64],
    zero_a: int,
    zero_w: NDArray[np.int64],
    saturate: bool,
) -> NDArray[np.int64]:
    rank = a.ndim - 2
    strides = node.attr_ints("strides", (1,) * rank)
    dilations = node.attr_ints("dilations", (1,) * rank)
    pads = node.attr_ints("pads", (0,) * (2 * rank))
    auto = node.attr_str("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    elif auto.startswith("SAME"):
        pads = _same(a.shape[2:], w.shape[2:], strides, dilations, upper=auto == "SAME_UPPER")
    return conv_sums(
        a,
        w,
        zero_a,
        zero_w,
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=node.attr_int("group", 1),
        saturate=saturate,
    )


def _same(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    upper: bool,
) -> tuple[int, ...]:
    """Padding that gives ceil(size / stride) results."""
    totals = [
        max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        for n, k, s, d in zip(size, kernel, strides, dilations, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*small, *large) if upper else (*large, *small)


def _quantized(a: NDArray[np.float32]) -> tuple[Array, Array, Array]:
    """(codes, scale, zero point) of a dynamic quantization to uint8: ONNX DynamicQuantizeLinear-11."""
    low, high = np.minimum(a.min(initial=0), np.float32(0)), np.maximum(a.max(initial=0), np.float32(0))
    scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    codes = np.clip(np.rint(a / scale) + zero, 0, 255)
    return np.asarray(codes, np.uint8), np.asarray(scale), np.asarray(zero, np.uint8)
