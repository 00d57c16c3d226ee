"""Activation functions.

Relu and Clip are clamps: they vanish into the saturation of the producer's quantized range when that range ends where
they clamp. Sigmoid, HardSigmoid and Softmax have a range known beforehand, 0..1.
"""

from __future__ import annotations

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Constraint, Kind, Lowering, OpRule, Role, register

_ONE = (Role.ACTIVATION,)


def _leaky_objection(graph: GraphView, node: NodeView) -> str:
    return "its slope is not constant" if not graph.is_constant(node.input(1)) else ""


register(OpRule(op_type="Relu", kind=Kind.CLAMP, inputs=_ONE))
register(OpRule(op_type="Clip", kind=Kind.CLAMP, inputs=(Role.ACTIVATION, Role.PLAIN, Role.PLAIN)))
register(
    OpRule(
        op_type="LeakyRelu",
        kind=Kind.ARITHMETIC,
        inputs=_ONE,
        lowering=Lowering(op_type="QLinearLeakyRelu", domain="com.microsoft", inputs="x0 s0 z0 sy zy"),
    )
)
register(
    OpRule(op_type="PRelu", kind=Kind.ARITHMETIC, inputs=(Role.ACTIVATION, Role.ACTIVATION), objection=_leaky_objection)
)
register(
    OpRule(
        op_type="Sigmoid",
        kind=Kind.ARITHMETIC,
        inputs=_ONE,
        constraint=Constraint.FIXED_OUTPUT,
        fixed_range=(0.0, 1.0),
        lowering=Lowering(op_type="QLinearSigmoid", domain="com.microsoft", inputs="x0 s0 z0 sy zy"),
    )
)
register(
    OpRule(
        op_type="HardSigmoid",
        kind=Kind.ARITHMETIC,
        inputs=_ONE,
        constraint=Constraint.FIXED_OUTPUT,
        fixed_range=(0.0, 1.0),
    )
)
register(
    OpRule(
        op_type="Softmax",
        kind=Kind.ARITHMETIC,
        inputs=_ONE,
        constraint=Constraint.FIXED_OUTPUT,
        fixed_range=(0.0, 1.0),
        lowering=Lowering(
            op_type="QLinearSoftmax", domain="com.microsoft", inputs="x0 s0 z0 sy zy", extra=(("opset", 13),)
        ),
    )
)
for _op in ("HardSwish", "Tanh", "Erf"):
    register(OpRule(op_type=_op, kind=Kind.ARITHMETIC, inputs=_ONE))
