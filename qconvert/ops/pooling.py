"""Pooling and means. MaxPool selects values, the others average them."""

from __future__ import annotations

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Constraint, Kind, Lowering, OpRule, Role, register

_ONE = (Role.ACTIVATION,)


def _max_pool_objection(graph: GraphView, node: NodeView) -> str:
    if len(node.outputs) > 1 and node.outputs[1] and graph.tensors[node.outputs[1]].consumers:
        return "its indices output is used"
    if graph.opset < 12:
        return "MaxPool takes integers from opset 12 on"
    return ""


def _average_pool_objection(graph: GraphView, node: NodeView) -> str:
    del graph
    if any(d != 1 for d in node.attr_ints("dilations")):
        return "it is dilated, which the integer kernel does not know"
    if node.attr_int("ceil_mode", 0) and node.attr_int("count_include_pad", 0):
        return "ceil_mode with count_include_pad: the integer kernel divides by another count"
    return ""


def is_filter(graph: GraphView, node: NodeView) -> bool:
    """Whether an AveragePool divides every sum by the same number, and has a known number of channels."""
    shape = graph.tensors[node.outputs[0]].shape
    if node.op_type != "AveragePool" or not shape or not isinstance(shape[1], int):
        return False
    return not node.attr_int("ceil_mode", 0) and (not node.is_padded or bool(node.attr_int("count_include_pad", 0)))


register(
    OpRule(
        op_type="MaxPool",
        kind=Kind.MOVEMENT,
        inputs=_ONE,
        constraint=Constraint.SAME_AS_INPUT,
        objection=_max_pool_objection,
        lowering=Lowering(op_type="MaxPool", inputs="x0", min_opset=12),
    )
)
register(
    OpRule(
        op_type="AveragePool",
        kind=Kind.ARITHMETIC,
        inputs=_ONE,
        objection=_average_pool_objection,
        lowering=Lowering(op_type="QLinearAveragePool", domain="com.microsoft", inputs="x0 s0 z0 sy zy"),
    )
)
register(
    OpRule(
        op_type="GlobalAveragePool",
        kind=Kind.ARITHMETIC,
        inputs=_ONE,
        lowering=Lowering(op_type="QLinearGlobalAveragePool", domain="com.microsoft", inputs="x0 s0 z0 sy zy"),
    )
)
register(OpRule(op_type="ReduceMean", kind=Kind.ARITHMETIC, inputs=(Role.ACTIVATION, Role.PLAIN)))


def _reduce_objection(graph: GraphView, node: NodeView) -> str:
    del node
    return "it takes integers from opset 12 on" if graph.opset < 12 else ""


for _op in ("ReduceMax", "ReduceMin"):
    register(
        OpRule(
            op_type=_op,
            kind=Kind.MOVEMENT,
            inputs=(Role.ACTIVATION, Role.PLAIN),
            constraint=Constraint.SAME_AS_INPUT,
            objection=_reduce_objection,
            lowering=Lowering(op_type=_op, inputs="x0 p1", min_opset=12),
        )
    )
