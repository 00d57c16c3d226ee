"""Costs for placement from profiles: of the float model, of one with everything on integers, of mixtures.

    a group's cost on a side = the sum over the optimized nodes that compute any of it in a profile of that side

The last profile that shows a group on a side counts: what a node takes depends on its neighbours.

A group is what a fused kernel of either profile computes together. Changes of layout belong to the node before them (or
behind, at an input); QuantizeLinear and DequantizeLinear, with the changes of layout next to them, are the boundary of
the tensor that they work on. A boundary that the profile does not show is estimated by its size (measure/boundary.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from qconvert.graph.view import GraphView, NodeView
from qconvert.measure.attribution import Attribution, attribute, result_of
from qconvert.measure.boundary import BoundaryCosts
from qconvert.measure.profile import Profile
from qconvert.plan.candidates import Candidate
from qconvert.plan.model import NodeTimes

# What float must gain before a node leaves the integers: times differ by that much from run to run.
MARGIN, MARGIN_US = 1.05, 1.0

_BOUNDARY = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_BLOCKED = "com.microsoft.nchwc"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCosts:
    """:class:`~qconvert.plan.costs.Costs` that were measured; in ns.

    Attributes:
        graph: the canonical graph.
        groups: node -> the name of its group.
        float_us, integer_us: group -> microseconds on that side.
        quantize_us, dequantize_us: tensor -> microseconds of its boundary where the integer profile has one.
        sizes: tensor -> elements.
        boundaries: estimates for the other boundaries.
        blocked: nodes that run in blocked layout in float.
    """

    graph: GraphView
    groups: Mapping[str, str]
    float_us: Mapping[str, float]
    integer_us: Mapping[str, float]
    quantize_us: Mapping[str, float]
    dequantize_us: Mapping[str, float]
    sizes: Mapping[str, int]
    boundaries: BoundaryCosts
    blocked: frozenset[str]

    def group(self, name: str) -> str:
        """The group of a node."""
        return self.groups.get(name, name)  # recovery may have put it there since

    def in_float(self, candidate: Candidate) -> float | None:
        """The group's time in float, charged to the node that the group is named after; tables stay integers."""
        if candidate.table:
            return None
        if self.group(candidate.node.name) != candidate.node.name:
            return 0.0
        return 1e3 * (self.float_us.get(candidate.node.name, 0.0) * MARGIN + MARGIN_US)

    def on_integers(self, candidate: Candidate) -> float:
        """The group's time on integers, charged to the node that the group is named after."""
        return 1e3 * self.integer_us.get(candidate.node.name, 0.0)

    def float_before(self, candidate: Candidate) -> Iterable[str]:
        """None: islands are weighed like everything else."""
        del candidate
        return ()

    def quantize(self, tensor: str) -> float:
        """Between a float producer and integer readers."""
        if tensor in self.quantize_us:
            return 1e3 * self.quantize_us[tensor]
        size, view = self.sizes.get(tensor, 1), self.graph.tensors.get(tensor)
        us = self.boundaries.quantize.at(size)
        if view is not None and view.producer in self.blocked:
            us += self.boundaries.from_blocks.at(size)
        return 1e3 * (us + self._transposed(tensor, size))

    def dequantize(self, tensor: str) -> float:
        """Between an integer producer and float readers."""
        if tensor in self.dequantize_us:
            return 1e3 * self.dequantize_us[tensor]
        size, view = self.sizes.get(tensor, 1), self.graph.tensors.get(tensor)
        us = self.boundaries.dequantize.at(size)
        if view is not None and any(reader in self.blocked for reader, _ in view.consumers):
            us += self.boundaries.to_blocks.at(size)
        return 1e3 * (us + self._transposed(tensor, size))

    def times(self, name: str) -> NodeTimes | None:
        """What the node's group takes on either side; None for what was not measured."""
        group = self.groups.get(name)
        if group is None or group not in self.float_us or group not in self.integer_us:
            return None
        return NodeTimes(float_us=self.float_us[group], integer_us=self.integer_us[group])

    def share(self, names: Iterable[str]) -> float:
        """How much of the time in float the groups of ``names`` take, 0..1."""
        total = sum(self.float_us.values())
        return sum(self.float_us.get(g, 0.0) for g in {self.groups[n] for n in names}) / total if total else 0.0

    def _transposed(self, tensor: str, size: int) -> float:
        """Integer convolutions want channels last."""
        view = self.graph.tensors.get(tensor)
        rank = view.rank if view is not None else None
        return self.boundaries.transpose.at(size) if rank is not None and rank >= 3 and self.blocked else 0.0


def measured_costs(
    graph: GraphView,
    in_float: Profile,
    others: Sequence[tuple[Set[str], Profile]],
    *,
    sizes: Mapping[str, int],
    boundaries: BoundaryCosts,
    placed: Set[str],
) -> MeasuredCosts:
    """Costs for ``graph`` from profiles of its forms.

    Args:
        graph: the canonical graph.
        in_float: the profile with everything in float.
        others: (nodes that run on integers, profile), the first with all that can.
        sizes: elements of tensors.
        boundaries: what boundaries cost by size.
        placed: nodes that placement can put on either side; one of them, if any, is charged for its group.
    """
    float_side = attribute(graph, in_float.run)
    sides = [attribute(graph, p.run) for _, p in others]
    groups = groups_of(graph, (float_side, *sides), placed)
    float_us, integer_us = group_times(in_float, float_side, groups), group_times(others[0][1], sides[0], groups)
    quantize_us: dict[str, float] = {}
    dequantize_us: dict[str, float] = {}
    for (integer, profile), side in zip(others, sides, strict=True):
        quantize, dequantize = boundary_times(graph, profile, side)
        quantize_us.update(quantize)
        dequantize_us.update(dequantize)
        on_integers = {groups[n] for n in integer}
        for group, us in group_times(profile, side, groups).items():
            (integer_us if group in on_integers else float_us)[group] = us
    blocked = {n for n, r in float_side.owner.items() if in_float.run.nodes[r].domain == _BLOCKED}
    return MeasuredCosts(
        graph=graph,
        groups=groups,
        float_us=float_us,
        integer_us=integer_us,
        quantize_us=quantize_us,
        dequantize_us=dequantize_us,
        sizes=sizes,
        boundaries=boundaries,
        blocked=frozenset(blocked),
    )


def groups_of(graph: GraphView, sides: Iterable[Attribution], preferred: Set[str] = frozenset()) -> dict[str, str]:
    """Node -> the first node of its group, of those ``preferred`` if it has any: nodes that one kernel computes are
    together."""
    parent = {name: name for name in graph.nodes}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    order = {name: i for i, name in enumerate(graph.nodes)}
    for side in sides:
        for parts in side.parts().values():
            for other in parts[1:]:
                a, b = sorted((root(parts[0]), root(other)), key=order.__getitem__)
                parent[b] = a
    first = {root(name): name for name in reversed(list(graph.nodes)) if name in preferred}
    return {name: first.get(root(name), root(name)) for name in graph.nodes}


def group_times(profile: Profile, side: Attribution, groups: Mapping[str, str]) -> dict[str, float]:
    """Group -> microseconds of its kernels and of the changes of layout that belong to it."""
    found: dict[str, float] = {}
    parts = side.parts()
    for name, us in profile.us.items():
        home = _home(profile.run, name, side)
        if home in parts:
            group = groups[parts[home][0]]
            found[group] = found.get(group, 0.0) + us
    return found


def boundary_times(graph: GraphView, profile: Profile, side: Attribution) -> tuple[dict[str, float], dict[str, float]]:
    """(tensor -> us of what quantizes it, tensor -> us of its DequantizeLinear), changes of layout included."""
    found: dict[str, dict[str, float]] = {op: {} for op in _BOUNDARY}
    for name, us in profile.us.items():
        home = _home(profile.run, name, side)
        node = profile.run.nodes[home] if home is not None else None
        if node is None or not _is_boundary(profile.run, node):
            continue
        names = [result_of(graph, t) for t in (node.outputs[0], node.inputs[0] or "")]
        tensor = next((t for t in names if t in graph.tensors), None)
        if tensor is not None:
            tensor = _clamped(graph, tensor, side)
            times = found[node.op_type]
            times[tensor] = times.get(tensor, 0.0) + us
    return {**found["QuantizeLinear"], **found["DynamicQuantizeLinear"]}, found["DequantizeLinear"]


def _clamped(graph: GraphView, tensor: str, side: Attribution) -> str:
    """``tensor``, or what a clamp makes of it that the same kernel computes: then that is all there is."""
    producer = graph.tensors[tensor].producer
    readers = graph.consumers(tensor)
    if producer is None or len(readers) != 1 or readers[0][0].op_type not in ("Relu", "Clip"):
        return tensor
    (clamp, _) = readers[0]
    same = side.owner.get(clamp.name) == side.owner.get(producer)
    return _clamped(graph, clamp.outputs[0], side) if same else tensor


def _home(run: GraphView, name: str, side: Attribution) -> str | None:
    """The computing node or the boundary that the time of a node is charged to.

    That is itself, but for a change of layout and for weights that are unpacked at every run: these belong to the
    boundary next to them, else to the computing node before them, else to the one behind.
    """
    node = run.nodes[name]
    if name in side.helpers:
        return side.helpers[name]
    if name not in side.conversions or _is_boundary(run, node):
        return name
    around = [*_chain(run, node, side, back=True), *_chain(run, node, side, back=False)]
    boundary = next((n.name for n in around if _is_boundary(run, n)), None)
    return boundary or next((n.name for n in around if n.name not in side.conversions), None)


def _is_boundary(run: GraphView, node: NodeView) -> bool:
    return node.op_type in _BOUNDARY and not run.is_constant(node.inputs[0])


def _chain(run: GraphView, node: NodeView, side: Attribution, *, back: bool) -> list[NodeView]:
    """The nodes before (behind) ``node`` through changes of layout, up to the first that is none."""
    found: list[NodeView] = []
    while True:
        near = (
            [run.producer(t or "") for t in node.inputs[:1]]
            if back
            else [n for t in node.outputs for n, _ in run.consumers(t)]
        )
        following = next((n for n in near if n is not None), None)
        if following is None:
            return found
        found.append(following)
        if following.name not in side.conversions or _is_boundary(run, following):
            return found
        node = following
