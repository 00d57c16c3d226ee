"""Scale groups: tensors that must share one scale and zero point, by union-find over the operators' constraints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qconvert.graph.view import GraphView
from qconvert.numerics.dtypes import qtype
from qconvert.numerics.spec import QuantSpec
from qconvert.ops.rule import Constraint, OpRule, Role
from qconvert.plan.candidates import Candidate
from qconvert.plan.clamps import clamp_bounds
from qconvert.plan.model import Group
from qconvert.plan.useful import floors, slopes_below, useful_range
from qconvert.plan.widths import Widths


class _Union:
    def __init__(self, items: Iterable[str]) -> None:
        self.parent = {i: i for i in items}

    def find(self, item: str) -> str:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, a: str, b: str) -> None:
        self.parent[self.find(b)] = self.find(a)


def make_groups(
    graph: GraphView,
    candidates: Mapping[str, Candidate],
    integer: set[str],
    absorbed: Mapping[str, str],
    tensors: list[str],
    widths: Widths,
) -> tuple[Group, ...]:
    """Group the quantized ``tensors`` (in graph order); each group knows which members must be observed.

    Movement operators join their outputs to their input, Concat joins all of its ports; a member that an integer
    movement operator makes only passes on values, so the others make the range.
    """
    union = _Union(tensors)
    bounds = _bounds(graph, candidates, integer, absorbed)
    passed_on: set[str] = set()
    fixed: dict[str, tuple[float, float]] = {}
    for name in graph.nodes:
        rule = candidates[name].rule
        if name not in integer or rule is None or candidates[name].table or name in absorbed:
            continue
        for members, follows in _shared(candidates[name], rule, union.parent, bounds):
            for other in members[1:]:
                union.join(members[0], other)
            passed_on.update(follows)
        known = candidates[name].capability.output_range or rule.fixed_range
        if known is not None:
            fixed.update({t: known for t in candidates[name].node.outputs if t in union.parent})
    members_of: dict[str, list[str]] = {}
    for t in tensors:
        members_of.setdefault(union.find(t), []).append(t)
    low = floors(graph)
    return tuple(
        _group(graph, members, _spec(widths, members), passed_on, fixed, low) for members in members_of.values()
    )


def _spec(widths: Widths, members: list[str]) -> QuantSpec:
    types = widths.of_tensors(members)
    return QuantSpec(qtype=qtype(types.activations), symmetric=types.symmetric)


Bounds = tuple[float, float]


def _bounds(
    graph: GraphView, candidates: Mapping[str, Candidate], integer: set[str], absorbed: Mapping[str, str]
) -> dict[str, Bounds]:
    """Tensor -> the range that an absorbed clamp must enforce on it, followed through movement operators."""
    found: dict[str, Bounds] = {}
    for name, node in graph.nodes.items():
        rule = candidates[name].rule
        if name not in integer or rule is None:
            continue
        bound = None
        if name in absorbed:
            bound = clamp_bounds(graph, node)
        elif rule.constraint is Constraint.SAME_AS_INPUT or candidates[name].capability.one_scale or rule.variadic:
            # a Concat of values that are all within the same bounds is within them
            bound = _common(found.get(node.inputs[p] or "") for p in rule.ports(Role.ACTIVATION, node))
        if bound is not None:
            found.update(dict.fromkeys(node.outputs, bound))
    return found


def _common(bounds: Iterable[Bounds | None]) -> Bounds | None:
    """The bounds that all of ``bounds`` are; None where they differ."""
    different = set(bounds)
    return different.pop() if len(different) == 1 else None


def undone_clamps(graph: GraphView, candidates: Mapping[str, Candidate], absorbed: Mapping[str, str]) -> set[str]:
    """Absorbed clamps that one scale with values beyond their bounds would undo, where an operator demands that.

    They have to be operators of their own.
    """
    integer = {name for name, c in candidates.items() if not c.objection}
    bounds = _bounds(graph, candidates, integer, absorbed)
    found: set[str] = set()
    for name in integer:
        rule, node = candidates[name].rule, candidates[name].node
        if rule is None or not candidates[name].capability.one_scale:
            continue
        sources = [node.inputs[p] or "" for p in rule.ports(Role.ACTIVATION, node)]
        if len({bounds.get(t) for t in sources}) > 1:
            found |= {clamp for t in sources for clamp in _clamps_before(graph, candidates, absorbed, t)}
    return found


def _clamps_before(
    graph: GraphView, candidates: Mapping[str, Candidate], absorbed: Mapping[str, str], tensor: str
) -> set[str]:
    """Absorbed clamps whose scale ``tensor`` has, through operators that have one scale."""
    producer = graph.producer(tensor)
    if producer is None:
        return set()
    if producer.name in absorbed:
        return {producer.name}
    if not candidates[producer.name].capability.one_scale:
        return set()
    return set().union(*(_clamps_before(graph, candidates, absorbed, t or "") for t in producer.inputs))


def _shared(
    candidate: Candidate, rule: OpRule, known: Mapping[str, str], bounds: Mapping[str, Bounds]
) -> list[tuple[list[str], list[str]]]:
    """(tensors that share a scale, those of them that only pass values on)."""
    node = candidate.node
    outputs = [t for t in node.outputs if t in known]
    if rule.constraint is Constraint.SAME_AS_INPUT or (candidate.capability.one_scale and not rule.variadic):
        source = node.inputs[0] or ""
        return [([source, *outputs], outputs)] if source in known else []
    if rule.constraint is Constraint.SHARED:
        sources = [node.inputs[p] or "" for p in rule.ports(Role.ACTIVATION, node)]
        if not candidate.capability.one_scale and len({bounds.get(t) for t in sources}) > 1:
            # one scale for a Relu's output and something with negative values would undo the absorbed Relu; the
            # result shares its scale with the others, so that those are copied and only the Relu's is rescaled
            free = [t for t in sources if t in known and t not in bounds]
            return [([*free, *outputs], [])]
        return [([t for t in [*sources, *outputs] if t in known], outputs)]
    return []


def _group(
    graph: GraphView,
    members: list[str],
    spec: QuantSpec,
    passed_on: set[str],
    fixed: Mapping[str, tuple[float, float]],
    low: Mapping[tuple[str, str], float],
) -> Group:
    constants = tuple(t for t in members if graph.is_constant(t))
    sources = tuple(t for t in members if t not in passed_on and t not in constants)
    ranges = [fixed[t] for t in sources if t in fixed]
    known = (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges and len(ranges) == len(sources) else None
    observed = () if known and not constants else sources
    return Group(
        tensors=tuple(members),
        spec=spec,
        observed=observed,
        constants=constants,
        fixed_range=known if not constants else None,
        useful=useful_range(graph, members, low),
        below=slopes_below(graph, members, observed),
    )
