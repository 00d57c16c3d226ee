"""Conv and ConvTranspose.

Conv weight [O, I/g, k, k]: channel axis 0 -> scale [O]. ConvTranspose weight [I, O/g, k, k]: channel axis 1 -> scale
[O/g], which is only one scale an output channel when group is 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.saturation import Order, conv_order
from qconvert.ops.rule import Kind, Lowering, OpRule, Role, register


def _conv_axis(graph: GraphView, node: NodeView) -> int | None:
    del graph, node
    return 0


def _conv_transpose_axis(graph: GraphView, node: NodeView) -> int | None:
    del graph
    return 1 if node.attr_int("group", 1) == 1 else None


def _conv_order(shape: tuple[int, ...], attributes: Mapping[str, int]) -> Order | None:
    depthwise = shape[0] == attributes.get("group", 1) and shape[1] == 1
    return None if depthwise else conv_order(shape)


register(
    OpRule(
        op_type="Conv",
        kind=Kind.WEIGHTED,
        inputs=(Role.ACTIVATION, Role.WEIGHT, Role.BIAS),
        weight_axis=_conv_axis,
        weight_order=_conv_order,
        lowering=Lowering(op_type="QLinearConv", inputs="x0 s0 z0 x1 s1 z1 sy zy b2"),
    )
)
register(
    OpRule(
        op_type="ConvTranspose",
        kind=Kind.WEIGHTED,
        inputs=(Role.ACTIVATION, Role.WEIGHT, Role.BIAS),
        weight_axis=_conv_transpose_axis,
    )
)
