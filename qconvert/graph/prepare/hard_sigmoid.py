"""HardSigmoid in place of the operators that older exports spell it with: two passes over the activations, not four.

    Clip(x + c, 0, k) / k        ->  HardSigmoid(x; alpha = 1 / k, beta = c / k)
    x * Clip(x + c, 0, k) / k    ->  x * HardSigmoid(x)             h-swish: c = 3, k = 6

A factor 1 / k counts as the division. Source: Howard et al. 2019, arXiv:1905.02244, section 5.2.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from qconvert.graph.edit import constant_of, take_over


def hard_sigmoid(model: ir.Model) -> None:
    """Rewrite every such chain whose values nothing else reads, in place."""
    graph = model.graph
    for clip in list(graph):
        if clip.graph is graph and clip.op_type == "Clip" and clip.domain in ("", "ai.onnx"):
            _rewrite(graph, clip)


def _rewrite(graph: ir.Graph, clip: ir.Node) -> None:
    low, high = (_scalar(clip.inputs[i]) if len(clip.inputs) > i else None for i in (1, 2))
    added = _made_by(clip.inputs[0], "Add")
    if low != 0 or not high or high < 0 or added is None:
        return
    x, c = _operands(added)
    after = _reader(clip.outputs[0])
    if x is None or c is None or after is None:
        return
    product = after if after.op_type == "Mul" and x in after.inputs else None
    scaled = after if product is None else _reader(product.outputs[0])
    if scaled is None or not _divides(scaled, high):
        return
    gate = ir.node("HardSigmoid", [x], attributes={"alpha": 1 / high, "beta": c / high}, name=clip.name)
    gate.outputs[0].type = clip.outputs[0].type
    graph.insert_before(clip, gate)
    if product is not None:
        gate.outputs[0].name, gate.outputs[0].shape = f"{clip.outputs[0].name}_gate", clip.outputs[0].shape
        product.replace_input_with(0 if product.inputs[0] is clip.outputs[0] else 1, gate.outputs[0])
    take_over((gate if product is None else product).outputs[0], scaled.outputs[0])
    graph.remove([scaled, clip, added], safe=True)


def _scalar(value: ir.Value | None) -> float | None:
    constant = constant_of(value)
    return float(constant.reshape(-1)[0]) if constant is not None and constant.size == 1 else None


def _operands(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    """(the computed operand, the constant one) of a binary operator."""
    for port in (0, 1):
        constant = _scalar(node.inputs[port])
        if constant is not None:
            return node.inputs[1 - port], constant
    return None, None


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != op_type or len(node.inputs) != 2 or len(node.outputs[0].uses()) != 1:
        return None
    return None if node.outputs[0].is_graph_output() else node


def _reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _divides(node: ir.Node, k: float) -> bool:
    if node.op_type == "Div":
        by = _scalar(node.inputs[1])
        return by is not None and math.isclose(by, k, rel_tol=1e-6)
    factor = _operands(node)[1] if node.op_type == "Mul" else None
    return factor is not None and math.isclose(factor * k, 1.0, rel_tol=1e-6)
