"""Which candidates run on integers: a minimum cut.

    total = sum over nodes of cost(node, its side)
          + sum over tensors of quantize(t)    if a float node makes t and an integer node reads it
          + sum over tensors of dequantize(t)  if an integer node makes t and a float node reads it

Every term is paid once a tensor, however many readers it has. Terms of this form are submodular, so the least total is
a minimum s-t cut (source = integer, sink = float) and is found exactly (Kolmogorov and Zabih 2004, "What energy
functions can be minimized via graph cuts?", theorem 4.1).

What running on integers does to the outputs can be a second term (:mod:`qconvert.plan.damage`). Then weighted operators
may go float, too. That is for accuracy alone: their cost in float is taken not to be below their cost on integers and
that of converting to and from them, so that where damage counts for nothing the placement is the one without this term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import networkx as nx

from qconvert.graph.view import GraphView
from qconvert.ops.rule import Kind, Role
from qconvert.plan.candidates import Candidate
from qconvert.plan.costs import Costs
from qconvert.plan.damage import Damage
from qconvert.targets.target import Target

_INTEGER, _FLOAT = "integer", "float"

# A convolution goes float only where the estimate says that it gains much: estimates are off by a third at times.
MARGIN = 1.35
MARGIN_NS = 5000.0
# And only where it holds a small share of the weights: the file must shrink, too.
MOST_WEIGHTS = 0.02

# Costs are whole numbers of this part of a ns: a flow of floats leaves remainders that decide ties by chance.
_PARTS = 1_000_000

# With damage as a second term: where both sides cost the same, integers are preferred.
_TIE_NS = 1.0


def place(
    graph: GraphView, candidates: Mapping[str, Candidate], absorbed: Mapping[str, str], target: Target
) -> set[str]:
    """Names of the nodes that should run on integers.

    Args:
        graph: the canonical graph.
        candidates: every node; one with an objection stays float, a weighted one without runs on integers.
        absorbed: clamps that vanish into their producer when that is an integer node (clamp name -> producer name).
        target: gives the costs.
    """
    return cut(graph, candidates, absorbed, target)[1]


def cut(
    graph: GraphView,
    candidates: Mapping[str, Candidate],
    absorbed: Mapping[str, str],
    target: Target,
    damage: Damage | None = None,
) -> tuple[float, set[str]]:
    """(the least total in ns, the nodes that run on integers); arguments as for :func:`place`, and the second term."""
    costs = Costs(graph=graph, target=target)
    net = nx.DiGraph()
    net.add_nodes_from([_INTEGER, _FLOAT])

    def edge(a: str, b: str, capacity: float | None) -> None:
        if a == b:
            return
        if capacity is None:
            net.add_edge(a, b)
            net[a][b].pop("capacity", None)  # no capacity attribute: infinite, whatever was there
        elif net.has_edge(a, b):
            if "capacity" in net[a][b]:
                net[a][b]["capacity"] += round(capacity * _PARTS)
        else:
            net.add_edge(a, b, capacity=round(capacity * _PARTS))

    ids = {name: f"n:{name}" for name in candidates}
    most_weights = MOST_WEIGHTS * sum(_weights(graph, c) for c in candidates.values())
    for name, c in candidates.items():
        if damage is not None and name not in damage.integer:
            edge(ids[name], _FLOAT, None)  # its cost in float counts all the same, to compare totals by
        if c.objection:
            edge(ids[name], _FLOAT, None)
        elif c.weighted and damage is not None:
            edge(_INTEGER, ids[name], work(costs, c, integer=False))
            edge(ids[name], _FLOAT, work(costs, c, integer=True))
        elif c.weighted:
            may_stay = c.node.op_type == "Conv" and _weights(graph, c) <= most_weights
            before = _weighted_before(graph, candidates, name) if may_stay else set()
            _weighted(costs, c, may_stay, [ids[b] for b in before], ids[name], edge)
        else:
            # a float convolution has its clamp for nothing, too
            edge(_INTEGER, ids[name], 0.0 if name in absorbed else costs.node(c.node, c.capability, integer=False))
            if name in absorbed:
                edge(ids[name], ids[absorbed[name]], None)
            elif c.rule is not None and c.rule.kind is Kind.CLAMP:
                edge(ids[name], _FLOAT, None)
            else:
                edge(ids[name], _FLOAT, costs.node(c.node, c.capability, integer=True))
    for name, tensor in graph.tensors.items():
        if tensor.is_constant or not tensor.is_float:
            continue
        producer = ids[tensor.producer] if tensor.producer is not None else _FLOAT
        wants = [ids[n] for n, port in tensor.consumers if _reads_codes(candidates[n], port)]
        floats = [ids[n] for n, _ in tensor.consumers] + ([_FLOAT] if tensor.is_output or tensor.captured else [])
        if wants:
            need = f"q:{name}"
            edge(need, producer, costs.quantize(name))
            for reader in wants:
                edge(reader, need, None)
        if tensor.producer is not None and floats and not candidates[tensor.producer].table:
            back = f"d:{name}"
            free = candidates[tensor.producer].capability.float_result
            edge(producer, back, 0.0 if free else costs.dequantize(name))
            for reader in floats:
                edge(back, reader, None)
    for i, term in enumerate(damage.terms if damage is not None else ()):
        some = f"s:{i}"
        edge(some, _FLOAT, term.noise * damage.price if damage is not None else 0.0)
        for name in sorted(term.nodes):
            edge(ids[name], some, None)
    total, (integer, _rest) = nx.minimum_cut(net, _INTEGER, _FLOAT)
    return total / _PARTS, {name for name in candidates if ids[name] in integer}


def work(costs: Costs, candidate: Candidate, *, integer: bool) -> float:
    """What an operator costs, in ns; in float, not less than on integers with all conversions that this may need."""
    node = candidate.node
    on_integers = _kernel(costs, candidate, integer=True)
    if integer:
        return on_integers
    tensors = costs.graph.tensors
    read = [t for t in node.inputs if t and tensors[t].is_float and not tensors[t].is_constant]
    conversions = sum(map(costs.quantize, read)) + sum(map(costs.dequantize, filter(None, node.outputs)))
    return max(_kernel(costs, candidate, integer=False), on_integers) + conversions + _TIE_NS


def _kernel(costs: Costs, candidate: Candidate, *, integer: bool) -> float:
    by_shape = costs.convolution(candidate.node, integer=integer) if candidate.node.op_type == "Conv" else None
    return costs.node(candidate.node, candidate.capability, integer=integer) if by_shape is None else by_shape


def _weighted(
    costs: Costs,
    candidate: Candidate,
    may_stay: bool,
    before: Iterable[str],
    own: str,
    edge: Callable[[str, str, float | None], None],
) -> None:
    """A weighted operator runs on integers, but for the first convolutions of a net, which may be slower so.

    They read few channels, which integer kernels are bad at. No convolution goes float behind an integer one (those at
    the graph nodes ``before``): that would make a float island, whose two boundaries the estimates are too coarse to
    weigh.
    """
    in_float = costs.convolution(candidate.node, integer=False) if may_stay else None
    on_integers = costs.convolution(candidate.node, integer=True) if may_stay else None
    if in_float is None or on_integers is None:
        edge(_INTEGER, own, None)
        return
    edge(_INTEGER, own, in_float * MARGIN + MARGIN_NS)
    edge(own, _FLOAT, on_integers)
    for other in before:
        edge(other, own, None)


def _weights(graph: GraphView, candidate: Candidate) -> int:
    """Elements of the constant weight of a weighted candidate."""
    if candidate.objection or not candidate.weighted or candidate.rule is None:
        return 0
    ports = candidate.rule.ports(Role.WEIGHT, candidate.node)
    return sum(graph.tensors[t].elements() for p in ports if graph.is_constant(t := candidate.node.inputs[p] or ""))


def _weighted_before(graph: GraphView, candidates: Mapping[str, Candidate], name: str) -> set[str]:
    """The nearest weighted operators whose results reach ``name``."""
    found: set[str] = set()
    waiting, seen = [name], {name}
    while waiting:
        node = candidates[waiting.pop()].node
        for tensor in node.inputs:
            producer = graph.producer(tensor or "")
            if producer is None or producer.name in seen:
                continue
            seen.add(producer.name)
            before = candidates[producer.name]
            if before.weighted and not before.objection:
                found.add(producer.name)
            else:
                waiting.append(producer.name)
    return found


def _reads_codes(candidate: Candidate, port: int) -> bool:
    return candidate.rule is not None and not candidate.table and candidate.rule.role(port) is Role.ACTIVATION
