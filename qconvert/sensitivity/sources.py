"""Where the error of a quantized model comes from, and which nodes are to blame for it.

A *source* is a weight stored as integers, or the tensors that share a scale. A *group* is what can be sent back to
float: an operator that makes new values, with the clamps absorbed into it. Its sources are its weight, and the scales
of all that it reads and writes as integers; a scale is there as long as any node needs it, so neighbours share sources.
Operators that only move values have no groups: they go along with their neighbours. Nor have those that compute in
float with a weight stored as integers: the weight is a source, but there is no time to trade for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.graph.constants import Port
from qconvert.graph.view import GraphView
from qconvert.ops.rule import Kind, key, rule_of
from qconvert.plan.model import NodePlan, QuantPlan, WeightPlan
from qconvert.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source of error.

    Attributes:
        tensor: the weight, or the first of the tensors that share the scale.
        nodes: it is there as long as any of these runs on integers.
        switch: the name of its switch (:mod:`qconvert.graph.switches`).
        port: where the weight is read; None for activations.
        weight: how the weight is stored; None for activations.
        scale: index of the plan's scale group; None for weights.
    """

    tensor: str
    nodes: frozenset[str]
    switch: str
    port: Port | None = None
    weight: WeightPlan | None = None
    scale: int | None = None

    @property
    def is_weight(self) -> bool:
        """Whether it is a weight."""
        return self.weight is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """Nodes that go to float together.

    Attributes:
        name: the operator that makes the values.
        op_type: its type.
        nodes: it, and the clamps absorbed into it.
        sources: indices of the sources that it has a part in.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    sources: tuple[int, ...]


def find_sources(graph: GraphView, plan: QuantPlan, target: Target) -> tuple[Source, ...]:
    """The sources of a solved ``plan``: weights in the order of their nodes, then scales."""
    stored = [(p, w) for p in plan.taken() for w in p.constants]
    weights = [
        Source(
            tensor=w.tensor,
            nodes=frozenset((p.node,)),
            switch=f"switch:weight:{p.node}" + (f":{w.port}" if w is p.second else ""),
            port=(p.node, w.port),
            weight=w,
        )
        for p, w in stored
    ]
    needing: dict[int, set[str]] = {i: set() for i in range(len(plan.groups))}
    scale_of = plan.group_of()
    for p in plan.taken():
        for tensor in _integers(graph, p, target):
            if tensor in scale_of:
                needing[scale_of[tensor]].add(p.node)
    scales = [
        Source(
            tensor=plan.groups[i].tensors[0],
            nodes=frozenset(nodes),
            switch=f"switch:scale:{i}",
            scale=i,
        )
        for i, nodes in needing.items()
        if nodes
    ]
    return (*weights, *scales)


def _integers(graph: GraphView, plan: NodePlan, target: Target) -> tuple[str, ...]:
    """Tensors that must be integers because ``plan``'s node runs on integers."""
    if not plan.activations:
        return ()
    node = graph.nodes[plan.node]
    product = plan.op_type == "MatMul" and plan.weight is None
    capability = target.products if product else target.capability(key(node.domain, node.op_type))
    return plan.read_tensors if capability.float_result else (*plan.read_tensors, *plan.quantized_outputs)


def find_groups(graph: GraphView, plan: QuantPlan, sources: tuple[Source, ...]) -> tuple[NodeGroup, ...]:
    """The groups of ``plan``, in graph order."""
    clamps: dict[str, list[str]] = {}
    for p in plan.taken():
        if p.absorbed_into is not None:
            clamps.setdefault(p.absorbed_into, []).append(p.node)
    return tuple(
        NodeGroup(
            name=p.node,
            op_type=p.op_type,
            nodes=(p.node, *clamps.get(p.node, ())),
            sources=tuple(i for i, s in enumerate(sources) if p.node in s.nodes),
        )
        for p in plan.taken()
        if _makes_values(graph, p)
    )


def _makes_values(graph: GraphView, plan: NodePlan) -> bool:
    """Whether the node makes new values, and could make them in float instead."""
    rule = rule_of(graph.nodes[plan.node])
    if plan.table is not None:
        return True
    return bool(plan.activations) and rule is not None and rule.kind is not Kind.MOVEMENT
