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

from collections.abc import Mapping

from qconvert.graph.view import GraphView
from qconvert.ops.rule import Role
from qconvert.plan.candidates import Candidate
from qconvert.plan.costs import Costs
from qconvert.plan.damage import Damage

# what :func:`cut` imports
CUT_LIBRARY = "networkx"

_INTEGER, _FLOAT = "integer", "float"

# Costs are whole numbers of this part of a ns: a flow of floats leaves remainders that decide ties by chance.
_PARTS = 1_000_000


def place(graph: GraphView, candidates: Mapping[str, Candidate], absorbed: Mapping[str, str], costs: Costs) -> set[str]:
    """Names of the nodes that should run on integers.

    Args:
        graph: the canonical graph.
        candidates: every node; one with an objection stays float.
        absorbed: clamps that vanish into their producer when that is an integer node (clamp name -> producer name).
        costs: of nodes and boundaries.
    """
    return cut(graph, candidates, absorbed, costs)[1]


def cut(
    graph: GraphView,
    candidates: Mapping[str, Candidate],
    absorbed: Mapping[str, str],
    costs: Costs,
    damage: Damage | None = None,
) -> tuple[float, set[str]]:
    """(the least total in ns, the nodes that run on integers); arguments as for :func:`place`, and the second term."""
    import networkx as nx  # a tenth of a second: whoever is sure to come here begins with it early (CUT_LIBRARY)

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

    stuck = {name for name, c in candidates.items() if c.objection or (c.is_clamp and name not in absorbed)}
    # what must stay float is in no group: the others of its group may leave it
    ids = {name: f"n:{name}" if name in stuck else f"g:{costs.group(name)}" for name in candidates}
    for name, c in candidates.items():
        if damage is not None and name not in damage.integer:
            edge(ids[name], _FLOAT, None)  # its cost in float counts all the same, to compare totals by
        if name in stuck:
            edge(ids[name], _FLOAT, None)
            continue
        if name in absorbed:
            # a float convolution has its clamp for nothing, too
            edge(_INTEGER, ids[name], 0.0)
            edge(ids[name], ids[absorbed[name]], None)
            continue
        edge(_INTEGER, ids[name], costs.in_float(c))
        edge(ids[name], _FLOAT, costs.on_integers(c))
        for other in costs.float_before(c):
            edge(ids[other], ids[name], None)
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


def _reads_codes(candidate: Candidate, port: int) -> bool:
    return candidate.rule is not None and not candidate.table and candidate.rule.role(port) is Role.ACTIVATION
