"""Depthwise convolutions on integers whose channels are filled up to a number that their kernel is fast with.

Of integer kernels of depthwise convolutions that for a multiple of 16 channels takes a third of the time of others
(:attr:`~qconvert.targets.target.ConvolutionCosts.depthwise`). Channels cannot be added to a tensor alone: all that is
computed channel by channel between dense convolutions gets as many, its *region*:

    dense -> [activation -> depthwise -> pooling -> product ...] -> dense

Filters of zeros at the dense convolutions that write the region make the channels, zeros in the filters of those that
read it ignore them, so whatever is computed in them changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qconvert.forms import TITLES, WIDENED
from qconvert.graph.view import GraphView, NodeView
from qconvert.plan.convolutions import ConvolutionShape, assumed_shape, convolution_ns
from qconvert.plan.model import NodePlan, QuantPlan, Widening
from qconvert.targets.target import ConvolutionCosts

# Operators that compute every channel by itself, from one input or from two.
_ALONE = frozenset(
    {"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "LeakyRelu", "Tanh", "Erf", "Elu", "Softplus"}
    | {"GlobalAveragePool", "AveragePool", "MaxPool", "GlobalMaxPool", "Identity", "Dropout"}
)
_PAIRS = frozenset({"Add", "Mul", "Sub"})
# What the channels that are added cost an operator between, for each element.
_ELEMENT_NS = 0.1
# By how much the region has to be estimated faster.
_MARGIN, _MARGIN_NS = 1.05, 3000.0


def with_widening(
    graph: GraphView, plan: QuantPlan, costs: ConvolutionCosts | None, said: Mapping[str, str]
) -> QuantPlan:
    """``plan`` with channels added where that is estimated to be faster, or where a recipe says so.

    Args:
        graph: the canonical graph.
        plan: with all other forms.
        costs: of the target; None where nothing is known.
        said: node -> form, what the recipe says; it says nothing of others.
    """
    nodes = dict(plan.nodes)
    for name, node in graph.nodes.items():
        if costs is None or not costs.folds or not _is_depthwise(graph, node, nodes[name]) or nodes[name].form:
            continue
        if said.get(name, WIDENED) != WIDENED:
            continue
        region = _region(graph, nodes, node, costs)
        if region is None or any(said.get(d, WIDENED) != WIDENED for d in region.depthwise):
            continue
        if name in said or _pays(graph, region, costs):
            for member in region.depthwise:
                decided = nodes[member]
                reason = f"{decided.decision.reason}, {TITLES[WIDENED]} {region.channels}"
                decision = replace(decided.decision, reason=reason)
                nodes[member] = replace(decided, form=WIDENED, wide=region, decision=decision)
    return replace(plan, nodes=nodes)


@dataclass(slots=True, kw_only=True)
class _Growing:
    """A region as far as it is known.

    Attributes:
        channels: of all tensors in it.
        waiting, tensors: tensors that are yet to be looked at, and all.
        producers, depthwise, consumers: convolutions.
    """

    channels: int
    waiting: list[str] = field(default_factory=list)
    tensors: set[str] = field(default_factory=set)
    producers: dict[str, None] = field(default_factory=dict)
    depthwise: dict[str, None] = field(default_factory=dict)
    consumers: dict[str, None] = field(default_factory=dict)

    def add(self, tensor: str | None) -> None:
        if tensor and tensor not in self.tensors:
            self.tensors.add(tensor)
            self.waiting.append(tensor)


def _region(
    graph: GraphView, nodes: Mapping[str, NodePlan], start: NodeView, costs: ConvolutionCosts
) -> Widening | None:
    """The region of the depthwise convolution ``start``; None where its channels cannot be added to."""
    channels = _channels(graph, start.outputs[0])
    if channels is None or channels % costs.lane == 0:
        return None
    region = _Growing(channels=channels)
    region.add(start.outputs[0])
    while region.waiting:
        tensor = graph.tensors[region.waiting.pop()]
        producer = graph.producer(tensor.name)
        open_ended = producer is None or tensor.is_output or tensor.captured or tensor.is_constant
        if open_ended or _channels(graph, tensor.name) != channels:
            return None
        members = [(producer, None), *graph.consumers(tensor.name)]
        if not all(n is not None and _joins(graph, nodes, region, n, port) for n, port in members):
            return None
    return Widening(
        channels=math.ceil(channels / costs.lane) * costs.lane,
        producers=tuple(region.producers),
        depthwise=tuple(region.depthwise),
        consumers=tuple(region.consumers),
        elements=sum(_elements(graph, t) for t in region.tensors),
    )


def _joins(graph: GraphView, nodes: Mapping[str, NodePlan], region: _Growing, node: NodeView, port: int | None) -> bool:
    """Let ``node``, which reads a tensor of ``region`` at ``port``, or makes it (None), join; whether it can."""
    if node.op_type == "Conv":
        plan = nodes[node.name]
        if not plan.multiplies or plan.form:
            return False
        if _is_depthwise(graph, node, plan):
            region.depthwise[node.name] = None
            region.add(node.inputs[0])
            region.add(node.outputs[0])
            return port in (None, 0)
        if node.attr_int("group", 1) != 1:
            return False
        (region.producers if port is None else region.consumers)[node.name] = None
        return port in (None, 0)
    if node.op_type in _ALONE and len(node.outputs) == 1:
        if any(not graph.is_constant(t) for t in node.inputs[1:] if t):
            return False
        region.add(node.inputs[0])
        region.add(node.outputs[0])
        return True
    if node.op_type not in _PAIRS:
        return False
    region.add(node.outputs[0])
    for tensor in node.inputs:
        if graph.is_constant(tensor):
            if graph.tensors[tensor or ""].elements() != 1:
                return False
        elif _channels(graph, tensor) != 1:
            region.add(tensor)
    return True


def _pays(graph: GraphView, region: Widening, costs: ConvolutionCosts) -> bool:
    """Whether all convolutions of ``region`` together are estimated to be faster."""
    before = after = 0.0
    for name in (*region.producers, *region.depthwise, *region.consumers):
        shape = assumed_shape(graph, graph.nodes[name])
        if shape is None:
            return False
        before += convolution_ns(shape, costs, integer=True)
        after += convolution_ns(_widened(shape, name, region), costs, integer=True)
    old = _channels(graph, graph.nodes[region.depthwise[0]].outputs[0]) or region.channels
    after += (region.channels - old) / old * region.elements * _ELEMENT_NS
    return after * _MARGIN + _MARGIN_NS < before


def _widened(shape: ConvolutionShape, name: str, region: Widening) -> ConvolutionShape:
    if name in region.depthwise:
        return replace(shape, channels_out=region.channels, groups=region.channels)
    inner = region.channels if name in region.consumers else shape.channels_in
    return replace(
        shape, channels_in=inner, channels_out=region.channels if name in region.producers else shape.channels_out
    )


def _is_depthwise(graph: GraphView, node: NodeView, plan: NodePlan) -> bool:
    """Whether every channel has one filter of its own, with a weight that is stored as integers."""
    group, weight = node.attr_int("group", 1), graph.tensors.get(node.input(1) or "")
    if node.op_type != "Conv" or group == 1 or not plan.multiplies or weight is None or weight.shape is None:
        return False
    return weight.shape[:2] == (group, 1)


def _channels(graph: GraphView, tensor: str | None) -> int | None:
    view = graph.tensors.get(tensor or "")
    size = view.shape[1] if view is not None and view.shape is not None and len(view.shape) == 4 else None
    return size if isinstance(size, int) and size > 0 else None


def _elements(graph: GraphView, tensor: str) -> int:
    return graph.tensors[tensor].elements()
