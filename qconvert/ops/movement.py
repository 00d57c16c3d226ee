"""Operators that move, select or repeat values: the output has the scale of the input.

Their QOperator form is the operator itself on the codes.
"""

from __future__ import annotations

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Constraint, Kind, Lowering, OpRule, Role, register


def _movement(op_type: str, plain: int = 0, min_opset: int = 10) -> None:
    tokens = " ".join(["x0", *(f"p{i + 1}" for i in range(plain))])
    register(
        OpRule(
            op_type=op_type,
            kind=Kind.MOVEMENT,
            inputs=(Role.ACTIVATION, *[Role.PLAIN] * plain),
            constraint=Constraint.SAME_AS_INPUT,
            lowering=Lowering(op_type=op_type, inputs=tokens, min_opset=min_opset),
        )
    )


for _op in ("Transpose", "Flatten", "DepthToSpace", "SpaceToDepth"):
    _movement(_op)
for _op in ("Reshape", "Squeeze", "Unsqueeze", "Expand", "Tile", "Split"):
    _movement(_op, plain=1)
_movement("Slice", plain=4)


def _pad_objection(graph: GraphView, node: NodeView) -> str:
    if graph.opset < 13:
        return "Pad takes integers from opset 13 on"
    if node.attr_str("mode", "constant") == "constant":
        fill = node.input(2)
        if fill is not None and not graph.is_constant(fill):
            return "its fill value is not constant"
        if fill is not None and float(graph.constant(fill).reshape(-1)[0]) != 0.0:
            return "its fill value is not zero"
    return ""


def _resize_objection(graph: GraphView, node: NodeView) -> str:
    if graph.opset < 11:
        return "Resize takes integers from opset 11 on"
    if node.attr_str("mode", "nearest") != "nearest":
        return "interpolation makes new values; the integer kernel truncates them"
    if node.attr_str("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return "it extrapolates"
    return ""


register(
    OpRule(
        op_type="Pad",
        kind=Kind.MOVEMENT,
        inputs=(Role.ACTIVATION, Role.PLAIN, Role.PLAIN, Role.PLAIN),
        constraint=Constraint.SAME_AS_INPUT,
        objection=_pad_objection,
        lowering=Lowering(op_type="Pad", inputs="x0 p1 z0 p3", min_opset=13),
    )
)
register(
    OpRule(
        op_type="Resize",
        kind=Kind.MOVEMENT,
        inputs=(Role.ACTIVATION, Role.PLAIN, Role.PLAIN, Role.PLAIN),
        constraint=Constraint.SAME_AS_INPUT,
        objection=_resize_objection,
        lowering=Lowering(op_type="Resize", inputs="x0 p1 p2 p3", min_opset=11),
    )
)
register(
    OpRule(
        op_type="Concat",
        kind=Kind.ARITHMETIC,
        inputs=(Role.ACTIVATION,),
        variadic=True,
        constraint=Constraint.SHARED,
        lowering=Lowering(op_type="QLinearConcat", domain="com.microsoft", inputs="sy zy * xn sn zn"),
    )
)
register(
    OpRule(
        op_type="Gather",
        kind=Kind.MOVEMENT,
        inputs=(Role.ACTIVATION, Role.PLAIN),
        constraint=Constraint.SAME_AS_INPUT,
        table_port=0,
        lowering=Lowering(op_type="Gather", inputs="x0 p1"),
    )
)
