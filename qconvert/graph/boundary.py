"""Where float meets integers in a graph: QuantizeLinear and DequantizeLinear of activations."""

from __future__ import annotations

from qconvert.graph.view import GraphView, NodeView


def quantizers(graph: GraphView) -> list[NodeView]:
    """QuantizeLinear nodes, those of constants excepted."""
    return [n for n in graph.nodes.values() if n.op_type == "QuantizeLinear" and not graph.is_constant(n.input(0))]


def dequantizers(graph: GraphView) -> list[NodeView]:
    """DequantizeLinear nodes, those of constants excepted."""
    return [n for n in graph.nodes.values() if n.op_type == "DequantizeLinear" and not graph.is_constant(n.input(0))]
