"""Activation functions of several nodes that ONNX Runtime computes in one operator, if it finds them whole.

    QuickGelu(x) = x sigmoid(x)                        alpha = 1; found by its Sigmoid
    Gelu(x)      = x (1 + erf(x / sqrt 2)) / 2         found by its Erf; the factors in any order
    FastGelu(x)  = x (1 + tanh(sqrt(2 / pi) (x + .044715 x^3))) / 2                     found by its Tanh

    PRelu(x)     = max(x, s x)                         one slope s <= 1 a channel; found by its Max

Behind an integer operator it does not: every reader of x has a DequantizeLinear of its own there. Sources: Hendrycks
and Gimpel 2016, arXiv:1606.08415; the operators' documentation in ONNX Runtime 1.32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.view import GraphView, NodeView

_SOME = 1e-4
# What the Tanh of a Gelu reads, by powers of x, and how many nodes may make it.
_CUBIC = math.sqrt(2 / math.pi) * np.array([0.0, 1.0, 0.0, 0.044715])
_POLYNOMIAL, _LONGEST = ("Add", "Mul", "Pow"), 8


def activation_at(graph: GraphView, node: NodeView) -> tuple[str, ...]:
    """The nodes of the activation function that ``node``, a Sigmoid, an Erf or a Tanh, is the heart of: the first one
    reads x, the last one makes the result. () where it is of none whose values between are read by nothing else."""
    if node.op_type == "Sigmoid":
        return _swish(graph, node)
    return _gelu(graph, node) if node.op_type in ("Erf", "Tanh") else ()


def argument_of(graph: GraphView, nodes: tuple[str, ...]) -> str:
    """What the first of ``nodes``, those of an activation function, reads: x."""
    first = graph.nodes[nodes[0]]
    return next((t for t in first.inputs if t is not None and not graph.is_constant(t)), "")


def slope_of(graph: GraphView, node: NodeView, tensor: str) -> float | None:
    """How much of a change of ``tensor`` where it is negative is left by ``node``, which reads it as the argument of
    LeakyRelu or PRelu, or as a part of PRelu; of several slopes the root of the mean square. None for other nodes."""
    if node.domain not in ("", "ai.onnx") or node.inputs[0] != tensor:
        return None
    if node.op_type == "LeakyRelu":
        return abs(node.attr_float("alpha", 0.01))
    if node.op_type == "PRelu":
        return _rms(graph, node.inputs[1])
    if node.op_type == "Max":
        scaled = graph.producer(node.inputs[1] or "") if len(node.inputs) == 2 else None
        return 0.0 if scaled is not None and _is_slope(graph, scaled, tensor) else None
    if not _is_slope(graph, node, tensor):
        return None
    largest = any(n.op_type == "Max" and n.inputs[0] == tensor for n, _ in graph.consumers(node.outputs[0]))
    return _rms(graph, node.inputs[1]) if largest else None


def _is_slope(graph: GraphView, node: NodeView, tensor: str) -> bool:
    """Whether ``node`` multiplies ``tensor`` with a number a channel, of at most 1."""
    if node.op_type != "Conv" or node.inputs[0] != tensor or len(node.inputs) > 2 or node.is_padded:
        return False
    weight = node.inputs[1] or ""
    if not graph.is_constant(weight):
        return False
    filters = np.asarray(graph.constant(weight), np.float64)
    return filters.size == filters.shape[0] == node.attr_int("group", 1) and bool((filters <= 1).all())


def _rms(graph: GraphView, tensor: str | None) -> float | None:
    if tensor is None or not graph.is_constant(tensor):
        return None
    return float(np.sqrt(np.mean(np.square(graph.constant(tensor), dtype=np.float64))))


def _swish(graph: GraphView, gate: NodeView) -> tuple[str, ...]:
    product = _reader(graph, gate)
    if product is None or not _is_product(product) or gate.inputs[0] != _other(product, gate.outputs[0]):
        return ()
    return gate.name, product.name


def _gelu(graph: GraphView, heart: NodeView) -> tuple[str, ...]:
    root = _erf_of(graph, heart) if heart.op_type == "Erf" else _tanh_of(graph, heart)
    nodes = _gelu_of(graph, heart, *root) if root is not None else ()
    inside = set(nodes)
    results = [o for n in nodes[:-1] for o in graph.nodes[n].outputs]
    alone = all(not graph.tensors[r].is_output and not graph.tensors[r].captured for r in results)
    return nodes if alone and all(n.name in inside for r in results for n, _ in graph.consumers(r)) else ()


def _erf_of(graph: GraphView, erf: NodeView) -> tuple[str, list[str]] | None:
    """(x, the nodes between) where ``erf`` reads x / sqrt 2."""
    scaled = graph.producer(erf.inputs[0] or "")
    root = _factor(graph, scaled) if scaled is not None else None
    if scaled is None or root is None or not math.isclose(root[1], 0.5**0.5, rel_tol=_SOME):
        return None
    return root[0], [scaled.name]


def _tanh_of(graph: GraphView, tanh: NodeView) -> tuple[str, list[str]] | None:
    """(x, the nodes between) where ``tanh`` reads sqrt(2 / pi) (x + .044715 x^3), however that is written."""
    before: list[NodeView] = []
    tensors = [tanh.inputs[0] or ""]
    for tensor in tensors:
        node = graph.producer(tensor)
        if node is not None and node not in before and len(before) < _LONGEST and node.op_type in _POLYNOMIAL:
            before.append(node)
            tensors += [t for t in node.inputs if t is not None and t not in tensors and not graph.is_constant(t)]
    for x in tensors[1:]:
        found: dict[str, NDArray[np.float64]] = {x: np.array([0.0, 1.0, 0.0, 0.0])}
        polynomial = _polynomial(graph, tensors[0], found, {n.outputs[0]: n for n in before})
        if polynomial is not None and np.allclose(polynomial, _CUBIC, rtol=_SOME, atol=0):
            return x, [n.name for n in graph.nodes.values() if n.outputs[0] in found and n.outputs[0] != x]
    return None


def _polynomial(
    graph: GraphView, tensor: str, found: dict[str, NDArray[np.float64]], makers: Mapping[str, NodeView]
) -> NDArray[np.float64] | None:
    """The coefficients [4] of ``tensor``, made by ``makers``, as a polynomial in the one in ``found``, to which what is
    on the way is added; None where it is none of degree 3 or less."""
    if tensor in found:
        return found[tensor]
    if (constant := _scalar(graph, tensor)) is not None:
        return np.array([constant, 0.0, 0.0, 0.0])
    node = makers.get(tensor)
    if node is None or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
        return None
    first, second = (_polynomial(graph, t or "", found, makers) for t in node.inputs)
    if first is None or second is None:
        return None
    if node.op_type == "Add":
        result = first + second
    elif node.op_type == "Mul":
        result = np.convolve(first, second)
    else:
        exponent = second[0]
        if second[1:].any() or exponent not in (2.0, 3.0):
            return None
        result = np.convolve(np.convolve(first, first), first if exponent == 3 else [1.0])
    if result[4:].any():
        return None
    found[tensor] = result[:4]
    return found[tensor]


def _gelu_of(graph: GraphView, heart: NodeView, x: str, before: list[str]) -> tuple[str, ...]:
    """All nodes of a Gelu: ``before``, its ``heart``, and those behind it, which multiply with x / 2."""
    add = _reader(graph, heart)
    if add is None or add.op_type != "Add":
        return ()
    if not _is_constant(graph, _other(add, heart.outputs[0]), 1.0):
        return ()
    nodes, factor, last, found = [*before, heart.name, add.name], 1.0, add, False
    while not (found and math.isclose(factor, 0.5, rel_tol=_SOME)):
        following = _reader(graph, last)
        if following is None:
            return ()
        of_constant = _factor(graph, following)
        if of_constant is not None:
            factor *= of_constant[1]
        elif found or not _is_product(following):
            return ()
        else:
            found, side = True, _other(following, last.outputs[0])
            if side != x:
                half = graph.producer(side)
                times = _factor(graph, half) if half is not None else None
                if half is None or times is None or times[0] != x or _reader(graph, half) is not following:
                    return ()
                factor *= times[1]
                nodes.append(half.name)
        last = following
        nodes.append(last.name)
    return tuple(nodes)


def _reader(graph: GraphView, node: NodeView) -> NodeView | None:
    """The one node that reads the result of ``node``, where nothing else does."""
    out = graph.tensors[node.outputs[0]]
    if out.is_output or out.captured or len(out.consumers) != 1:
        return None
    reader = graph.consumers(out.name)[0][0]
    return reader if reader.domain in ("", "ai.onnx") else None


def _is_product(node: NodeView) -> bool:
    return node.op_type == "Mul" and node.domain in ("", "ai.onnx")


def _other(node: NodeView, tensor: str) -> str:
    """The operand of a binary operator beside ``tensor``."""
    return next((t or "" for t in node.inputs if t != tensor), tensor)


def _factor(graph: GraphView, node: NodeView) -> tuple[str, float] | None:
    """(x, f) where ``node`` computes f x, f a constant."""
    if node.op_type not in ("Mul", "Div") or node.domain not in ("", "ai.onnx"):
        return None
    for port in (1, 0) if node.op_type == "Mul" else (1,):
        value = _scalar(graph, node.inputs[port])
        if value:
            return node.inputs[1 - port] or "", 1 / value if node.op_type == "Div" else value
    return None


def _is_constant(graph: GraphView, tensor: str, value: float) -> bool:
    found = _scalar(graph, tensor)
    return found is not None and math.isclose(found, value, rel_tol=_SOME)


def _scalar(graph: GraphView, tensor: str | None) -> float | None:
    if tensor is None or not graph.is_constant(tensor) or graph.tensors[tensor].elements() != 1:
        return None
    return float(np.asarray(graph.constant(tensor)).reshape(-1)[0])
