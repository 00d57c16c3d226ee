"""The quantized model as a float model with free biases: what a pass of stage SOLVED measures on.

It rounds what the plan rounds, and clamps stay where they were, so that a layer's result can be observed before and
after its clamp. Up to float summation it computes what the integer kernels compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from qconvert.graph.constants import Port, with_constants
from qconvert.graph.model import Model
from qconvert.graph.simulate import Rounding, simulated
from qconvert.graph.view import GraphView
from qconvert.numerics.affine import dequantize, quantize, weight_params
from qconvert.numerics.spec import QParams
from qconvert.plan.model import QuantPlan
from qconvert.recover.layers import Array, Layer, find_layers
from qconvert.recover.recovery import Subject


def multiplying_layers(subject: Subject, plan: QuantPlan) -> dict[str, Layer]:
    """The layers that multiply integers: those that run on integers, and those that quantize what they read as the
    model runs (:data:`qconvert.forms.DYNAMIC`)."""
    return {n: layer for n, layer in find_layers(subject.graph).items() if plan.nodes[n].multiplies}


def stored_layers(subject: Subject, plan: QuantPlan) -> dict[str, Layer]:
    """The layers whose weights are stored as integers, whatever they compute in; transposed convolutions are among
    them."""
    found = find_layers(subject.graph, transposed=True)
    return {n: layer for n, layer in found.items() if plan.nodes[n].decision.taken and plan.nodes[n].weight is not None}


def parameters_of(subject: Subject, plan: QuantPlan, node: str, weight: Array) -> QParams:
    """The parameters that emission will use for ``weight``, that of ``node``."""
    chosen = subject.changes.parameters.get(node)
    planned = plan.nodes[node].weight
    if chosen is not None:
        return chosen
    if planned is None or planned.params is not None:
        return planned.params  # type: ignore[union-attr,return-value]
    return weight_params(weight, planned.spec)


def simulation(
    subject: Subject, plan: QuantPlan, free: Mapping[Port, str], ranges: Mapping[int, str] = MappingProxyType({})
) -> Model:
    """The quantized form of ``subject.model`` under ``plan``.

    Args:
        subject: gives the model, and changes of its constants.
        plan: solved.
        free: biases that are to be inputs, and the names of these.
        ranges: groups of the plan whose scale and zero point are to be inputs, and the stems of their names
            (:func:`qconvert.graph.simulate.free_names`).
    """
    constants: dict[Port, Array] = dict(subject.changes.constants)
    for node in plan.taken():
        if node.weight is not None:
            port = (node.node, node.weight.port)
            weight = subject.constant(port)
            params = parameters_of(subject, plan, node.node, weight)
            constants[port] = dequantize(quantize(weight, params), params)
    constants = {port: value for port, value in constants.items() if port not in free}
    return simulated(with_constants(subject.model, constants), roundings(subject.graph, plan, ranges), free)


def roundings(graph: GraphView, plan: QuantPlan, ranges: Mapping[int, str]) -> list[Rounding]:
    """What ``plan`` rounds in ``graph``; ``ranges`` as for :func:`simulation`."""
    integer = {p.node for p in plan.taken() if p.absorbed_into is not None or p.activations}
    reads = frozenset((p.node, port) for p in plan.taken() for port in p.activations)
    made = {t for n in integer for t in graph.nodes[n].outputs}
    return [
        Rounding(tensor=t, params=g.params, readers=None if t in made else reads, free=ranges.get(i))
        for i, g in enumerate(plan.groups)
        if g.params is not None
        for t in g.tensors
    ]


def channels_axis(layer: Layer) -> int:
    """The axis of the channels in a layer's result."""
    return -1 if layer.op_type == "MatMul" else 1
