"""MatMul and Gemm.

MatMul(x [..., M, K], W [K, N]): channel axis 1 of a rank-2 W -> scale [N]. A W of higher rank is quantized per tensor,
because one scale for each last-axis slice of a batched W has no kernel form. Gemm(x, W, b): W [K, N] axis 1, or transB
[N, K] axis 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.saturation import Order, matmul_order
from qconvert.ops.rule import FloatOutput, Kind, Lowering, OpRule, Role, register


def _matmul_axis(graph: GraphView, node: NodeView) -> int | None:
    weight = node.input(1)
    return 1 if weight is not None and graph.tensors[weight].rank == 2 else None


def _matmul_objection(graph: GraphView, node: NodeView) -> str:
    left = node.input(0)
    if graph.is_constant(left):
        return "its left operand is the constant one"
    return ""


def _gemm_axis(graph: GraphView, node: NodeView) -> int | None:
    del graph
    return 0 if node.attr_int("transB", 0) else 1


def _gemm_objection(graph: GraphView, node: NodeView) -> str:
    if node.attr_int("transA", 0):
        return "transA is set"
    if graph.is_constant(node.input(0)):
        return "its left operand is constant"
    if not graph.is_constant(node.input(1)):
        return "its right operand is not constant"
    if node.attr_float("alpha", 1.0) != 1.0 or node.attr_float("beta", 1.0) != 1.0:
        return "alpha or beta is not 1 and could not be folded"
    bias = node.input(2)
    if bias is not None and not graph.is_constant(bias):
        return "its bias is not constant"
    if bias is not None and graph.tensors[bias].rank != 1:
        return "its bias is not one value a column"
    return ""


def _order(shape: tuple[int, ...], attributes: Mapping[str, int]) -> Order | None:
    return matmul_order(shape, transposed=bool(attributes.get("transB", 0))) if len(shape) > 1 else None


register(
    OpRule(
        op_type="MatMul",
        kind=Kind.WEIGHTED,
        inputs=(Role.ACTIVATION, Role.WEIGHT),
        weight_axis=_matmul_axis,
        weight_order=_order,
        objection=_matmul_objection,
        lowering=Lowering(
            op_type="QLinearMatMul",
            inputs="x0 s0 z0 x1 s1 z1 sy zy",
            float_output=FloatOutput(op_type="MatMulIntegerToFloat", inputs="x0 x1 s0 s1 z0 z1"),
        ),
    )
)
register(
    OpRule(
        op_type="Gemm",
        kind=Kind.WEIGHTED,
        inputs=(Role.ACTIVATION, Role.WEIGHT, Role.BIAS),
        weight_axis=_gemm_axis,
        weight_order=_order,
        objection=_gemm_objection,
        lowering=Lowering(
            op_type="QGemm",
            domain="com.microsoft",
            inputs="x0 s0 z0 x1 s1 z1 b2 sy zy",
            float_output=FloatOutput(op_type="QGemm", inputs="x0 s0 z0 x1 s1 z1 b2"),
        ),
    )
)
