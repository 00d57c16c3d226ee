"""LSTM, GRU and RNN: weights that can be held as integers.

W [d, G H, I] and R [d, G H, H], of d directions and G gates: a row for each gate of each unit, so channel axis 1 ->
scale [G H], which both directions share. There is no QOperator form, and Q/DQ around them would only round: they
compute in float, or take their inputs in codes of their own (:data:`qconvert.forms.DYNAMIC`).
"""

from __future__ import annotations

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Kind, OpRule, Role, register

RECURRENT = ("LSTM", "GRU", "RNN")

# The nodes that unpack a smaller weight take about as many bytes as integers save.
LEAST_WEIGHT = 512


def _axis(graph: GraphView, node: NodeView) -> int:
    del graph, node
    return 1


def _objection(graph: GraphView, node: NodeView) -> str:
    sizes = [graph.tensors[node.inputs[port] or ""].elements() for port in (1, 2)]
    return "its weights are so small that storing them as integers gains nothing" if max(sizes) < LEAST_WEIGHT else ""


for _name in RECURRENT:
    register(
        OpRule(
            op_type=_name,
            kind=Kind.RECURRENT,
            inputs=(Role.ACTIVATION, Role.WEIGHT, Role.WEIGHT),
            weight_axis=_axis,
            least_weight=LEAST_WEIGHT,
            objection=_objection,
        )
    )
