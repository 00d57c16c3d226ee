"""How much work a run of a model is, told from one run: what bounds the cost of passes without a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qconvert.graph.footprint import FLOAT_BYTES, value_bytes
from qconvert.plan.model import QuantPlan
from qconvert.recover.layers import Layer, find_layers, owns_weight
from qconvert.recover.recovery import Subject
from qconvert.recover.simulation import multiplying_layers

# multiplications that take as long as an element takes to be made by one node and read by the next
_AN_ELEMENT = 32


def multiplications(subject: Subject, layers: Mapping[str, Layer]) -> float:
    """Multiplications of ``layers`` on the first sample: for each element of a result, the weights of its channel."""
    results = list(dict.fromkeys(layer.result for layer in layers.values()))
    if not results:
        return 0.0
    sizes = value_bytes(subject.model, results, next(iter(subject.samples)))
    elements = {name: size / FLOAT_BYTES for name, size in sizes.items()}
    return sum(elements.get(n.result, 0) * subject.weight(n).size / outputs(subject, n) for n in layers.values())


def run_work(subject: Subject) -> float:
    """Work of a run of the whole model on the first sample, in multiplications.

    Those of all layers, and for each element that a node makes what moving it about costs. Source: runs of simulated
    integer models on two cores, from DS-CNN (0.1 ms) to a ResNet-50 shape (80 ms), 14 of them: 16 ms for 1e9 of these,
    within a factor of two; by multiplications alone it was six.
    """
    graph = subject.graph
    made = [t for node in graph.nodes.values() for t in node.outputs if t and graph.tensors[t].is_float]
    moved = sum(value_bytes(subject.model, made, next(iter(subject.samples))).values()) / FLOAT_BYTES
    return multiplications(subject, find_layers(graph)) + _AN_ELEMENT * moved


def outputs(subject: Subject, layer: Layer) -> int:
    """Output channels of ``layer``."""
    return layer.outputs(subject.weight(layer))


def affordable(
    subject: Subject, plan: QuantPlan, cost: Callable[[int, int, int], float], operations: float
) -> dict[str, Layer]:
    """The layers that multiply integers and own their weight, in graph order: the cheapest ones up to so many
    multiplications.

    ``cost`` gives the multiplications of a layer from its groups, and from outputs and inputs of a group.
    """
    found = {n: layer for n, layer in multiplying_layers(subject, plan).items() if owns_weight(subject.graph, layer)}
    costs = {n: cost(*layer.by_outputs(subject.weight(layer)).shape) for n, layer in found.items()}
    spent, kept = 0.0, set()
    for name in sorted(found, key=lambda n: costs[n]):
        spent += costs[name]
        if spent <= operations:
            kept.add(name)
    return {n: layer for n, layer in found.items() if n in kept}
