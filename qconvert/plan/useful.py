"""The values of a tensor that what reads it can tell apart: no code is spent on others.

    HardSigmoid(x)        is 0 for x <= -beta / alpha, and 1 for x >= (1 - beta) / alpha
    x HardSigmoid(x)      is 0 for x <= -beta / alpha, and so is HardSwish(x), for x <= -3
    Relu(x), Clip(x)      are the same beyond their bounds
    sigmoid(x)            is within 5e-5 of 0 and 1 beyond -10 and 10; x sigmoid(x) is within 5e-4 of 0 for x <= -10
    Gelu(x)               is within 2e-5 of 0 for x <= -4.5
    tanh(x)               is within 1e-4 of -1 and 1 beyond -5 and 5

A range that is cut there loses nothing, or nothing to speak of, whatever the data. LeakyRelu and PRelu tell all values
apart, but leave of an error in a negative one only their slope of it. Source: ONNX operator specification.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from qconvert.graph.view import GraphView, NodeView
from qconvert.plan.activations import activation_at, argument_of, slope_of
from qconvert.plan.clamps import clamp_bounds

Range = tuple[float, float]

EVERYTHING: Range = (-math.inf, math.inf)


# By the operator at the heart of an activation function: where it is 0 to speak of.
_DEAD = {"Sigmoid": -10.0, "Erf": -4.5, "Tanh": -4.5}
_LEVEL = {"Sigmoid": 10.0, "Tanh": 5.0}


def floors(graph: GraphView) -> dict[tuple[str, str], float]:
    """(x, node) -> below which x makes no difference to ``node``, a part of an activation function of x."""
    found: dict[tuple[str, str], float] = {}
    for node in graph.nodes.values():
        if node.op_type in _DEAD and node.domain in ("", "ai.onnx") and (nodes := activation_at(graph, node)):
            x = argument_of(graph, nodes)
            found.update({(x, name): _DEAD[node.op_type] for name in nodes})
    return found


def useful_range(graph: GraphView, tensors: Iterable[str], low: Mapping[tuple[str, str], float]) -> Range:
    """The values, 0 among them, of the members of a scale group that make a difference to what reads them.

    Args:
        graph: the canonical graph.
        tensors: the members; an operator between two of them passes values on.
        low: the :func:`floors` of ``graph``.
    """
    members = set(tensors)
    found = [
        (low[tensor, node.name], math.inf) if (tensor, node.name) in low else _read(graph, tensor, node, port)
        for tensor in members
        for node, port in graph.consumers(tensor)
        if not members & set(node.outputs)
    ]
    seen = any(graph.tensors[t].is_output or graph.tensors[t].captured for t in members)
    if seen or not found:
        return EVERYTHING
    return min(0.0, *(lo for lo, _ in found)), max(0.0, *(hi for _, hi in found))


def slopes_below(graph: GraphView, tensors: Iterable[str], observed: Iterable[str]) -> tuple[float, ...]:
    """How much of an error in a negative value is left in what reads it, 0 to 1, for members of a scale group.

    Of slopes that differ by channel, it is the root of their mean square. () where all of it is left everywhere.

    Args:
        graph: the canonical graph.
        tensors: the members of the group.
        observed: those that are asked for, whose values make the range.
    """
    members = set(tensors)

    def left(tensor: str) -> float:
        info = graph.tensors[tensor]
        if info.is_output or info.captured or not info.consumers:
            return 1.0
        return max(read(node, tensor) for node, _ in graph.consumers(tensor))

    def read(node: NodeView, tensor: str) -> float:
        slope = slope_of(graph, node, tensor)
        passed = [left(t) for t in node.outputs if t in members]
        return min(1.0, max(passed, default=1.0) if slope is None else slope)

    found = tuple(left(t) for t in observed)
    return found if min(found, default=1.0) < 1 else ()


def _read(graph: GraphView, tensor: str, node: NodeView, port: int) -> Range:
    """What ``node`` can tell apart of the values that it reads at ``port``."""
    if node.domain not in ("", "ai.onnx"):
        return EVERYTHING
    if node.op_type in _LEVEL:
        return -_LEVEL[node.op_type], _LEVEL[node.op_type]
    if node.op_type == "HardSwish":
        return -3.0, math.inf
    if node.op_type == "HardSigmoid":
        return _open(node)
    if node.op_type in ("Relu", "Clip") and port == 0:
        return clamp_bounds(graph, node) or EVERYTHING
    if node.op_type == "Mul":
        gate = graph.producer(node.inputs[1 - port] or "")
        if gate is not None and gate.op_type == "HardSigmoid" and gate.inputs[0] == tensor:
            return _open(gate)[0], math.inf
    return EVERYTHING


def _open(gate: NodeView) -> Range:
    """Where the slope of a HardSigmoid is not 0."""
    alpha, beta = gate.attr_float("alpha", 0.2), gate.attr_float("beta", 0.5)
    return (-beta / alpha, (1 - beta) / alpha) if alpha > 0 else EVERYTHING
