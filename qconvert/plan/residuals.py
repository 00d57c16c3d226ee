"""Residual operands of additions that a runtime fuses into the weighted operator before them.

    y = Conv(...) + x          x is quantized; Conv's float result is not

so that the fused kernel reads integers only. The operand is the one that is not the sum of that kernel: where both come
out of weighted operators, of the earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping

from qconvert.graph.view import GraphView
from qconvert.plan.candidates import Candidate


def residual_operands(
    graph: GraphView, candidates: Mapping[str, Candidate], integer: set[str]
) -> dict[str, tuple[int, str]]:
    """Add -> (port, tensor) of its residual operand, for each behind a weighted operator of ``integer``."""
    order = {name: i for i, name in enumerate(graph.nodes)}
    found: dict[str, tuple[int, str]] = {}
    for name, node in graph.nodes.items():
        candidate, tensors = candidates[name], [t or "" for t in node.inputs[:2]]
        # the target itself objects to integers on both sides; other objections are to any
        if node.op_type != "Add" or name in integer or candidate.objection not in ("", candidate.capability.reason):
            continue
        if any(graph.is_constant(t) or not graph.tensors[t].is_float for t in tensors):
            continue
        sums = {port: _sum_of(graph, candidates, integer, tensor) for port, tensor in enumerate(tensors)}
        ports = [port for port, producer in sums.items() if producer]
        if ports:
            residual = 1 - max(ports, key=lambda port: order[sums[port]])
            found[name] = (residual, tensors[residual])
    return found


def _sum_of(graph: GraphView, candidates: Mapping[str, Candidate], integer: set[str], tensor: str) -> str:
    """The weighted operator whose result ``tensor`` is, read by nobody else; "" where there is none."""
    view = graph.tensors[tensor]
    if view.producer is None or view.producer not in integer or not candidates[view.producer].weighted:
        return ""
    alone = len(view.consumers) == 1 and not view.is_output and not view.captured
    return view.producer if alone and not candidates[view.producer].table else ""
