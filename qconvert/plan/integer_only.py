"""What a plan leaves in float, for runtimes that have no float arithmetic."""

from __future__ import annotations

from qconvert.graph.view import GraphView
from qconvert.plan.model import QuantPlan

# they read a tensor's shape, not its values
_SHAPES = frozenset({"Shape", "Size"})


def float_operators(graph: GraphView, plan: QuantPlan) -> dict[str, str]:
    """Node -> why it stays float, for every node of ``graph`` that reads or writes float values."""
    weights = {w.tensor for p in plan.taken() for w in (p.weight, p.second) if w is not None}
    found: dict[str, str] = {}
    for name, node in graph.nodes.items():
        decided = plan.nodes[name]
        in_float = not decided.decision.taken or (decided.weight is not None and not decided.activations)
        if not in_float or node.op_type in _SHAPES or weights & set(node.outputs):
            continue
        tensors = [graph.tensors[t] for t in (*node.inputs, *node.outputs) if t is not None and t in graph.tensors]
        if node.has_bodies or any(t.is_float and not t.is_constant for t in tensors):
            found[name] = decided.decision.reason
    return found
