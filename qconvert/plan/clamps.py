"""Relu and Clip that vanish into the saturation of the producer's range.

    QuantizeLinear saturates at scale * (lo - zero_point) and scale * (hi - zero_point)

so a producer whose range is that of the clamp's output performs the clamp for nothing. It holds for Relu, and for Clip
with constant bounds lo <= 0 <= hi, when activations are asymmetric (a symmetric range of a Relu's output reaches below
zero).
"""

from __future__ import annotations

from collections.abc import Mapping

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Constraint, Kind
from qconvert.plan.candidates import Candidate
from qconvert.recipe.resolve import IntegerTypes


def find_absorbed(graph: GraphView, candidates: Mapping[str, Candidate], types: IntegerTypes) -> dict[str, str]:
    """Clamp name -> name of the producer that can take it over."""
    if types.symmetric:
        return {}
    found: dict[str, str] = {}
    for name, c in candidates.items():
        if c.objection or not c.is_clamp or clamp_bounds(graph, c.node) is None:
            continue
        source = c.node.inputs[0] or ""
        producer = graph.producer(source)
        view = graph.tensors[source]
        if producer is None or view.is_output or view.captured or len(view.consumers) != 1:
            continue
        p = candidates[producer.name]
        if p.objection or p.table or p.rule is None or p.rule.kind not in (Kind.WEIGHTED, Kind.ARITHMETIC):
            continue
        if p.rule.constraint is Constraint.SHARED and not p.rule.variadic:
            continue  # it compares codes, so its result has the scale of what it reads
        if p.rule.fixed_range is None and len([t for t in producer.outputs if t]) == 1:
            found[name] = producer.name
    return found


def clamp_bounds(graph: GraphView, node: NodeView) -> tuple[float, float] | None:
    """(lo, hi) of a Relu or Clip; None when a bound is not constant or zero lies outside."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = [node.attr_float("min", float("-inf")), node.attr_float("max", float("inf"))]
    for i, port in enumerate((1, 2)):
        tensor = node.input(port)
        if tensor is None:
            continue
        if not graph.is_constant(tensor):
            return None
        bounds[i] = float(graph.constant(tensor).reshape(-1)[0])
    return (bounds[0], bounds[1]) if bounds[0] <= 0.0 <= bounds[1] else None
