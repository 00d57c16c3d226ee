"""(graph, recipe, target) -> QuantPlan: a decision with a reason for every node; no numbers yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.dtypes import INT8, qtype
from qconvert.numerics.spec import PerAxis, PerTensor, QuantSpec
from qconvert.ops.rule import Kind, OpRule, Role
from qconvert.plan.accuracy import keep_accurate
from qconvert.plan.candidates import Candidate, find_candidates
from qconvert.plan.clamps import find_absorbed
from qconvert.plan.costs import LEAST_STORED, StaticCosts, weight_elements
from qconvert.plan.forms import with_forms
from qconvert.plan.groups import make_groups, undone_clamps
from qconvert.plan.model import Decision, NodePlan, NodeTimes, QuantPlan, WeightPlan
from qconvert.plan.placement import place
from qconvert.plan.residuals import residual_operands
from qconvert.plan.widths import widths_of
from qconvert.recipe.recipe import ALL, PINNED, Recipe
from qconvert.recipe.resolve import IntegerTypes
from qconvert.targets.target import Target

PINNED_FLOAT = "pinned to float by the recipe"
MEASURED_FLOAT = "float is faster here, conversions included, as measured"


def build_plan(
    graph: GraphView,
    recipe: Recipe,
    target: Target,
    kept_float: Mapping[str, str] = MappingProxyType({}),
    times: Mapping[str, NodeTimes] = MappingProxyType({}),
) -> QuantPlan:
    """Decide for every node of ``graph`` whether it runs on integers, and how its tensors are quantized.

    Args:
        graph: the canonical graph.
        recipe: the user's choices.
        target: what the runtime runs well.
        kept_float: nodes that must stay float for a reason found out otherwise: name -> reason.
        times: what nodes were measured to take, by name; makes no difference to the decisions.

    Raises:
        RecipeError: an include or exclude pattern matches nothing.
    """
    candidates = weighed(graph, recipe, target, kept_float)
    widths = widths_of(graph, recipe, target)
    absorbed = find_absorbed(graph, candidates, widths.own)
    pinned = set(recipe.pinned_float)
    if target.integer_only:
        while undone := undone_clamps(graph, candidates, absorbed):
            absorbed = {c: p for c, p in absorbed.items() if c not in undone}
        integer = {n for n, c in candidates.items() if not c.objection}
    elif recipe.placement in (ALL, PINNED):
        candidates = {n: _stored(graph, c) if n in pinned else c for n, c in candidates.items()}
        able = {n for n, c in candidates.items() if not c.objection and not _lone_clamp(c, absorbed)}
        integer = able - pinned
    else:
        # what convolutions cost by shape was measured with 8 bits
        costs = StaticCosts.of(graph, replace(target, convolutions=None) if widths.own.wide else target, candidates)
        integer = place(graph, candidates, absorbed, costs)
    integer = _prune(candidates, absorbed, integer, graph)
    absorbed = {c: p for c, p in absorbed.items() if c in integer and p in integer}
    residuals = residual_operands(graph, candidates, integer) if target.residuals else {}
    quantized = _quantized_tensors(graph, candidates, integer, absorbed, [t for _, t in residuals.values()])
    nodes = {
        name: _node_plan(graph, c, name in integer, absorbed, quantized, widths.of(name))
        for name, c in candidates.items()
    }
    nodes.update({name: _residual(candidates[name], port, tensor) for name, (port, tensor) in residuals.items()})
    nodes = {name: _with_times(n, times.get(name), name in pinned) for name, n in nodes.items()}
    for name, node in nodes.items():
        types = widths.of(name)
        if (types.activations, types.weights) in target.emulates:
            nodes[name] = replace(node, decision=_emulated(node))
    groups = make_groups(graph, candidates, integer, absorbed, quantized, widths)
    return with_forms(graph, QuantPlan(nodes=nodes, groups=groups, notes=()), recipe, target)


def weighed(
    graph: GraphView, recipe: Recipe, target: Target, kept_float: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Candidate]:
    """Every node of ``graph``, with an objection to those that no placement under ``recipe`` puts on integers."""
    candidates = {
        name: replace(c, objection=kept_float[name], stored=False) if name in kept_float else c
        for name, c in find_candidates(graph, recipe, target).items()
    }
    return candidates if recipe.placement == ALL or target.integer_only else keep_accurate(graph, candidates)


def _emulated(node: NodePlan) -> Decision:
    """The decision on ``node`` where integers are computed with in float."""
    if not node.decision.taken or node.absorbed_into is not None or not node.activations:
        return node.decision
    return replace(node.decision, reason="quantized inputs; computed in float on this target")


def _stored(graph: GraphView, candidate: Candidate) -> Candidate:
    """``candidate`` computing in float, with its weights as integers where the file shrinks by that."""
    stored = not candidate.table and weight_elements(graph, candidate) >= LEAST_STORED
    return replace(candidate, stored=stored or candidate.stored)


def _with_times(node: NodePlan, times: NodeTimes | None, pinned: bool) -> NodePlan:
    """``node`` with what it was measured to take, and why it is float if it was left so for that."""
    node = replace(node, times=times)
    computes_in_float = not node.decision.taken or (node.weight is not None and not node.activations)
    if not (pinned and computes_in_float):
        return node
    reason = PINNED_FLOAT if times is None else MEASURED_FLOAT
    stored = "; weights stored as integers" if node.weight is not None else ""
    return replace(node, decision=replace(node.decision, reason=f"{reason}{stored}"))


def _lone_clamp(candidate: Candidate, absorbed: Mapping[str, str]) -> bool:
    return candidate.is_clamp and candidate.node.name not in absorbed


def _prune(
    candidates: Mapping[str, Candidate], absorbed: Mapping[str, str], integer: set[str], graph: GraphView
) -> set[str]:
    """Take back clamps without their producer and movement operators without an integer neighbour, to the last."""
    kept = set(integer)
    changed = True
    while changed:
        drop = {
            n
            for n in kept
            if (n in absorbed and absorbed[n] not in kept)
            or (_moves(candidates[n]) and not _integer_neighbour(graph, candidates, kept, n))
        }
        kept -= drop
        changed = bool(drop)
    return kept


def _moves(candidate: Candidate) -> bool:
    return candidate.rule is not None and candidate.rule.kind is Kind.MOVEMENT and not candidate.table


def _integer_neighbour(graph: GraphView, candidates: Mapping[str, Candidate], kept: set[str], name: str) -> bool:
    node = candidates[name].node
    producer = graph.producer(node.inputs[0] or "")
    if producer is not None and producer.name in kept and not candidates[producer.name].table:
        return True
    return any(r in kept and not candidates[r].table for t in node.outputs if t for r, _ in graph.tensors[t].consumers)


def _quantized_tensors(
    graph: GraphView,
    candidates: Mapping[str, Candidate],
    integer: set[str],
    absorbed: Mapping[str, str],
    residuals: Iterable[str],
) -> list[str]:
    """Tensors held as integers: what integer nodes read, and what they write unless the kernel can write float."""
    needed: set[str] = set(residuals)
    taken_over = {candidates[c].node.inputs[0] for c in absorbed}
    for name in integer:
        c = candidates[name]
        if c.rule is None or c.table or name in absorbed:
            continue
        needed.update(c.node.inputs[p] or "" for p in _activation_ports(graph, c.node, c.rule))
    for name in integer:
        c = candidates[name]
        if c.rule is None or c.table:
            continue
        outputs = [t for t in c.node.outputs if t and t not in taken_over and t in graph.tensors]
        # every output of a multi-output operator (Split) or none
        if not c.capability.float_result or any(t in needed for t in outputs) or name in absorbed:
            needed.update(outputs)
    needed -= {t for t in taken_over if t is not None}
    order = [*graph.inputs, *(t for n in graph.nodes.values() for t in n.outputs)]
    constants = [t for t, v in graph.tensors.items() if v.is_constant]
    seen = dict.fromkeys([*constants, *order])
    return [t for t in seen if t in needed]


def _activation_ports(graph: GraphView, node: NodeView, rule: OpRule) -> tuple[int, ...]:
    ports = rule.ports(Role.ACTIVATION, node)
    # a MatMul of two activations reads both
    computed = tuple(p for p in rule.ports(Role.WEIGHT, node) if not graph.is_constant(node.inputs[p]))
    return ports + computed


def _node_plan(
    graph: GraphView,
    candidate: Candidate,
    taken: bool,
    absorbed: Mapping[str, str],
    quantized: list[str],
    types: IntegerTypes,
) -> NodePlan:
    node, rule = candidate.node, candidate.rule
    weights = _weight_plans(graph, node, rule, types) if rule is not None else []
    weight = weights[0] if weights else None
    if candidate.stored and not taken and rule is not None:
        return NodePlan(
            node=node.name,
            op_type=node.op_type,
            decision=Decision(taken=True, reason="weights stored as integers; computed in float"),
            weight=weight,
            second=weights[1] if len(weights) > 1 else None,
        )
    if not taken or rule is None:
        reason = candidate.objection or _why_not_placed(candidate)
        return NodePlan(node=node.name, op_type=node.op_type, decision=Decision(taken=False, reason=reason))
    if node.name in absorbed:
        return NodePlan(
            node=node.name,
            op_type=node.op_type,
            decision=Decision(taken=True, reason=f"absorbed into the range of {absorbed[node.name]}"),
            absorbed_into=absorbed[node.name],
            quantized_outputs=tuple(t for t in node.outputs if t in quantized),
        )
    if candidate.table:
        port = rule.table_port or 0
        return NodePlan(
            node=node.name,
            op_type=node.op_type,
            decision=Decision(taken=True, reason="table stored as integers, one scale a row"),
            table=WeightPlan(port=port, tensor=node.inputs[port] or "", spec=_weight_spec(types, 0, whole=True)),
        )
    biases = rule.ports(Role.BIAS, node)
    ports = _activation_ports(graph, node, rule)
    outputs = set(node.outputs)
    outputs.update(o for c, p in absorbed.items() if p == node.name for o in graph.nodes[c].outputs)
    return NodePlan(
        node=node.name,
        op_type=node.op_type,
        decision=Decision(taken=True, reason=_why(candidate)),
        activations=ports,
        read_tensors=tuple(node.inputs[p] or "" for p in ports),
        weight=weight,
        bias=biases[0] if biases else None,
        quantized_outputs=tuple(t for t in quantized if t in outputs),
    )


def _weight_plans(graph: GraphView, node: NodeView, rule: OpRule, types: IntegerTypes) -> list[WeightPlan]:
    """How the constants at the WEIGHT ports of ``node`` are stored, in the order of the ports."""
    constants = {p: node.inputs[p] or "" for p in rule.ports(Role.WEIGHT, node) if graph.is_constant(node.inputs[p])}
    worth = {p: t for p, t in constants.items() if graph.tensors[t].elements() >= rule.least_weight}
    axis = rule.weight_axis(graph, node) if worth and rule.weight_axis is not None and types.per_channel else None
    return [
        WeightPlan(port=p, tensor=t, spec=_weight_spec(types, axis, whole=_needs_bytes(graph, rule, t)))
        for p, t in worth.items()
    ]


def _needs_bytes(graph: GraphView, rule: OpRule, tensor: str) -> bool:
    """Whether fewer than 8 bits do not go for ``tensor``: Gather takes whole bytes only, and what a recurrent operator
    rounds comes back at every step."""
    return rule.kind is Kind.RECURRENT or _is_table(graph, tensor)


def _is_table(graph: GraphView, tensor: str) -> bool:
    """Whether rows are picked of the constant ``tensor``, or of what it is a Transpose of: it is stored once."""
    transpose = graph.producer(tensor)
    held = tensor if transpose is None else transpose.inputs[0] or ""
    return any(reader.op_type == "Gather" and port == 0 for reader, port in graph.consumers(held))


def _weight_spec(types: IntegerTypes, axis: int | None, *, whole: bool = False) -> QuantSpec:
    kind = qtype(types.weights)
    if whole and kind.bits < 8:
        kind = INT8
    return QuantSpec(
        qtype=kind,
        symmetric=True,
        granularity=PerTensor() if axis is None else PerAxis(axis=axis),
        narrow_range=kind.signed,
    )


def _residual(candidate: Candidate, port: int, tensor: str) -> NodePlan:
    """An Add of which one operand is quantized; the sum is float."""
    return NodePlan(
        node=candidate.node.name,
        op_type=candidate.node.op_type,
        decision=Decision(taken=True, reason="its residual operand is quantized, to be fused into the operator before"),
        activations=(port,),
        read_tensors=(tensor,),
    )


def _why(candidate: Candidate) -> str:
    if candidate.weighted:
        return "integer kernel"
    if candidate.rule is not None and candidate.rule.kind is Kind.MOVEMENT:
        return "passes integers on"
    return "joins integer operators"


def _why_not_placed(candidate: Candidate) -> str:
    if candidate.weighted:
        return "a first convolution of few channels, faster in float by the target's estimates"
    if candidate.is_clamp:
        return "no integer producer whose range could absorb it"
    if candidate.rule is not None and candidate.rule.kind is Kind.ARITHMETIC:
        return "the conversions around it would cost more than its integer kernel saves, or nothing integer follows"
    return "its neighbours are float"
