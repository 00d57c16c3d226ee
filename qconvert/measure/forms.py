"""Which forms pay (:mod:`qconvert.forms`), from profiles of the model without them and with all of a kind.

unit = nodes whose times cannot be told apart, or that share what one of their forms changes:
       the group of a node, of the Add that its form takes in, and of what makes the input of a bounded Softmax;
       the products that read one tensor, with what quantizes it
       the nodes of an activation function, with the conversions of what it reads and makes
units that compute alike, the layers of a transformer, are decided together by their median
a unit takes the forms of the profile in which it takes least, where that is less by more than noise
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from qconvert.forms import ACTIVATION, BOUNDED, DYNAMIC, FUSED
from qconvert.graph.view import GraphView, NodeView
from qconvert.measure.attribution import Attribution, attribute
from qconvert.measure.costs import boundary_times, group_times, groups_of
from qconvert.measure.profile import Profile
from qconvert.plan.activations import activation_at, argument_of
from qconvert.plan.forms import added

# A form is taken where it gains more than this: less than a boundary has to, because kinds are decided by the median of
# their layers, and what comes of it is timed as a whole.
MARGIN, MARGIN_US = 1.02, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Nodes that are faster in another form.

    Attributes:
        forms: node -> form.
        plain_us, form_us: what they take together, with all that is fused with them and what quantizes their inputs,
            without the forms and in them.
    """

    forms: Mapping[str, str]
    plain_us: float
    form_us: float


def variants(able: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """What to profile for ``able``, form -> nodes: static forms wherever there are any, and dynamic ones likewise."""
    static = {name: form for form in (FUSED, BOUNDED, ACTIVATION) for name in able.get(form, ())}
    dynamic = {**static, **dict.fromkeys(able.get(DYNAMIC, ()), DYNAMIC)}
    return [v for v in (static, dynamic if DYNAMIC in able else {}) if v]


def paying(graph: GraphView, plain: Profile, tried: Sequence[tuple[Mapping[str, str], Profile]]) -> tuple[Gain, ...]:
    """The units of ``graph`` that are faster in one of the ``tried`` forms than in ``plain``.

    Args:
        graph: the canonical graph.
        plain: the profile without forms.
        tried: (node -> form, profile); the first counts where another is no faster by more than noise.
    """
    profiles = (plain, *(p for _, p in tried))
    sides = [attribute(graph, p.run) for p in profiles]
    groups = groups_of(graph, sides)
    units = _units(graph, groups, {n for forms, _ in tried for n in forms})
    times = [group_times(p, side, groups) for p, side in zip(profiles, sides, strict=True)]
    borders = [_borders(graph, p, side) for p, side in zip(profiles, sides, strict=True)]
    alike: dict[Hashable, list[_Unit]] = {}
    for unit in units:
        alike.setdefault(_kind(graph, unit, [forms for forms, _ in tried]), []).append(unit)
    gains = []
    for kind in alike.values():
        costs = [len(kind) * median(_cost(unit, *at) for unit in kind) for at in zip(times, borders, strict=True)]
        best = 0
        for i, us in enumerate(costs[1:], 1):
            if us * MARGIN + MARGIN_US < costs[best]:
                best = i
        forms = {n: tried[best - 1][0][n] for u in kind for n in u.nodes if best and n in tried[best - 1][0]}
        if forms:
            gains.append(Gain(forms=forms, plain_us=costs[0], form_us=costs[best]))
    return tuple(gains)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    nodes: list[str]
    groups: set[str]
    tensors: set[str]


def _kind(graph: GraphView, unit: _Unit, forms: Sequence[Mapping[str, str]]) -> Hashable:
    """Equal for units that compute alike (the layers of a transformer): they are decided together, to be robust."""
    nodes = [graph.nodes[n] for n in unit.nodes]
    # the weight of a product, the input of an elementwise operator
    weights = [graph.tensors[n.inputs[min(1, len(n.inputs) - 1)] or ""].shape for n in nodes]
    return tuple((n.op_type, w, *(f.get(n.name) for f in forms)) for n, w in zip(nodes, weights, strict=True))


def _cost(unit: _Unit, times: Mapping[str, float], borders: Mapping[str, float]) -> float:
    return sum(times.get(g, 0.0) for g in unit.groups) + sum(borders.get(t, 0.0) for t in unit.tensors)


def _borders(graph: GraphView, profile: Profile, side: Attribution) -> dict[str, float]:
    """Tensor -> us of its conversions, either way."""
    quantize, dequantize = boundary_times(graph, profile, side)
    return {t: quantize.get(t, 0.0) + dequantize.get(t, 0.0) for t in (*quantize, *dequantize)}


def _unit(graph: GraphView, groups: Mapping[str, str], node: NodeView) -> _Unit:
    source, beside = node.inputs[0] or "", [n for n in (added(graph, node),) if n is not None]
    tensors = {source}
    if node.op_type == "Softmax":
        producer = graph.tensors[source].producer
        beside, tensors = [producer] if producer is not None else [], set()
    elif nodes := activation_at(graph, node):
        beside, tensors = list(nodes), {argument_of(graph, nodes), graph.nodes[nodes[-1]].outputs[0]}
    return _Unit(nodes=[node.name], groups={groups[n] for n in (node.name, *beside)}, tensors=tensors)


def _units(graph: GraphView, groups: Mapping[str, str], names: set[str]) -> list[_Unit]:
    units: list[_Unit] = []
    for name in (n for n in graph.nodes if n in names):
        unit = _unit(graph, groups, graph.nodes[name])
        for other in [u for u in units if u.groups & unit.groups or u.tensors & unit.tensors]:
            units.remove(other)
            unit = _Unit(
                nodes=[*other.nodes, *unit.nodes],
                groups=other.groups | unit.groups,
                tensors=other.tensors | unit.tensors,
            )
        units.append(unit)
    return units
