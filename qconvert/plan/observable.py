"""Which tensors any placement might ask calibration about."""

from __future__ import annotations

from collections.abc import Mapping

from qconvert.graph.view import GraphView
from qconvert.ops.rule import Role
from qconvert.plan.candidates import Candidate


def observable(graph: GraphView, candidates: Mapping[str, Candidate], absorbed: Mapping[str, str]) -> tuple[str, ...]:
    """Tensors that are quantized in some placement of ``candidates``, in graph order.

    That is all that a node without an objection reads or writes, but for what lies between a clamp and the node that it
    vanishes into.
    """
    between = {candidates[clamp].node.inputs[0] for clamp in absorbed}
    found: dict[str, None] = {}
    for c in candidates.values():
        if c.objection or c.table or c.rule is None:
            continue
        ports = (*c.rule.ports(Role.ACTIVATION, c.node), *c.rule.ports(Role.WEIGHT, c.node))
        for tensor in (*(c.node.inputs[p] or "" for p in ports), *c.node.outputs):
            view = graph.tensors.get(tensor)
            if view is not None and view.is_float and not view.is_constant and tensor not in between:
                found[tensor] = None
    return tuple(found)
