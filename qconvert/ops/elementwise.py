"""Binary arithmetic and Where: each operand has its own scale, the result another."""

from __future__ import annotations

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Constraint, Kind, Lowering, OpRule, Role, register

_TWO = (Role.ACTIVATION, Role.ACTIVATION)


def _two_constants(graph: GraphView, node: NodeView) -> str:
    return "both operands are constant" if all(graph.is_constant(name) for name in node.inputs[:2]) else ""


def _no_max_of_codes(graph: GraphView, node: NodeView) -> str:
    if graph.opset < 13:
        return "Max takes bytes from opset 13 on"
    return "it is no Max of two" if len(node.inputs) != 2 else _two_constants(graph, node)


for _op in ("Add", "Mul"):
    register(
        OpRule(
            op_type=_op,
            kind=Kind.ARITHMETIC,
            inputs=_TWO,
            objection=_two_constants,
            lowering=Lowering(op_type=f"QLinear{_op}", domain="com.microsoft", inputs="x0 s0 z0 x1 s1 z1 sy zy"),
        )
    )
register(
    OpRule(
        op_type="Max",
        kind=Kind.ARITHMETIC,
        inputs=_TWO,
        constraint=Constraint.SHARED,
        objection=_no_max_of_codes,
        lowering=Lowering(op_type="Max", inputs="x0 x1", min_opset=13),
    )
)
for _op in ("Sub", "Div"):
    register(OpRule(op_type=_op, kind=Kind.ARITHMETIC, inputs=_TWO, objection=_two_constants))
register(
    OpRule(
        op_type="Where",
        kind=Kind.ARITHMETIC,
        inputs=(Role.PLAIN, Role.ACTIVATION, Role.ACTIVATION),
        lowering=Lowering(op_type="QLinearWhere", domain="com.microsoft", inputs="p0 x1 s1 z1 x2 s2 z2 sy zy"),
    )
)
