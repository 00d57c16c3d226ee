"""QuantPlan and its parts. Replaced, never mutated.

A plan without numbers says what is quantized; ``calibrate.solve`` returns the same plan with QParams for every group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from qconvert.numerics.spec import QParams, QuantSpec
from qconvert.plan.folding import Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Yes or no, and why.

    Attributes:
        taken: whether the node runs on integers.
        reason: a sentence fragment for people ("feeds no integer operator").
    """

    taken: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTimes:
    """What a node, with all that ONNX Runtime fuses with it, was measured to take in microseconds.

    Attributes:
        float_us, integer_us: in float, on integers; boundaries not included.
    """

    float_us: float
    integer_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """A constant stored as integers: ``tensor`` at input ``port`` of a node, under ``spec``.

    ``params`` are scales chosen for it; None: those that its extremes give.
    """

    port: int
    tensor: str
    spec: QuantSpec
    params: QParams | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """Convolutions between which channels are added (:mod:`qconvert.plan.widening`).

    Attributes:
        channels: that all tensors between them have then.
        producers, depthwise, consumers: the dense ones that write these tensors, those that compute every channel by
            itself, the dense ones that read them.
        elements: of these tensors as they were, unknown sizes left out.
    """

    channels: int
    producers: tuple[str, ...]
    depthwise: tuple[str, ...]
    consumers: tuple[str, ...]
    elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """What becomes of one node.

    Attributes:
        node, op_type: which node.
        decision: whether it runs on integers, and why (not).
        activations: input ports that read quantized tensors.
        read_tensors: the tensors at those ports.
        weight: its constant operand, if it has one.
        second: another one (the recurrence weights of an LSTM); None where ``weight`` is.
        bias: the port of its int32 bias, if it has one.
        table: the constant of which rows are picked (Gather), if that is stored as integers.
        quantized_outputs: outputs that are emitted as integers.
        times: what it was measured to take, where that was done.
        absorbed_into: for a Relu or Clip that disappears into the saturation of its producer: that producer's name.
        form: how it is written, where that is not between Q/DQ pairs (:mod:`qconvert.forms`).
        adds: the Add of its bias, which its form takes in.
        takes: the nodes of the activation function that its form writes as one, itself among them.
        fold: how the rows of a convolution are folded by its form.
        wide: what is given more channels by its form.
    """

    node: str
    op_type: str
    decision: Decision
    activations: tuple[int, ...] = ()
    read_tensors: tuple[str, ...] = ()
    weight: WeightPlan | None = None
    second: WeightPlan | None = None
    bias: int | None = None
    table: WeightPlan | None = None
    quantized_outputs: tuple[str, ...] = ()
    absorbed_into: str | None = None
    times: NodeTimes | None = None
    form: str = ""
    adds: str | None = None
    takes: tuple[str, ...] = ()
    fold: Fold | None = None
    wide: Widening | None = None

    @property
    def constants(self) -> tuple[WeightPlan, ...]:
        """The constants that are stored as integers."""
        return tuple(w for w in (self.weight, self.second, self.table) if w is not None)

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies on integers with a constant weight."""
        return self.decision.taken and self.weight is not None and bool(self.activations or self.form)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeOption:
    """A range for a group.

    Attributes:
        method: the calibration method that proposes it.
        lo, hi: its ends.
        noise: the squared error that it is expected to make, as a share of the tensor's; 0 where that is not known.
    """

    method: str
    lo: float
    hi: float
    noise: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tensors that share one scale and zero point.

    Attributes:
        tensors: all members, in graph order.
        spec: how they are quantized (per tensor).
        observed: the members whose statistics make the range; the others only pass values on.
        constants: members that are initializers: their own range joins in.
        fixed_range: known beforehand (Sigmoid, Softmax), needs no statistics.
        useful: the values that make a difference to what reads the members; no range goes beyond them.
        below: for each observed member how much of an error in a negative value is left in what reads it, 0 to 1;
            () if all of it is.
        params: the numbers, once solved.
        method: what they come from, once solved: a calibration method, or a pass that has changed them.
        options: the ranges that were weighed, the chosen one first.
    """

    tensors: tuple[str, ...]
    spec: QuantSpec
    observed: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    fixed_range: tuple[float, float] | None = None
    useful: tuple[float, float] = (-math.inf, math.inf)
    below: tuple[float, ...] = ()
    params: QParams | None = None
    method: str = ""
    options: tuple[RangeOption, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantPlan:
    """The whole decision for a model.

    Attributes:
        nodes: by node name, every node of the main graph.
        groups: scale groups; each quantized activation tensor is in exactly one.
        notes: things worth telling that belong to no node.
    """

    nodes: Mapping[str, NodePlan]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()

    def group_of(self) -> dict[str, int]:
        """Tensor name -> index of its group."""
        return {t: i for i, g in enumerate(self.groups) for t in g.tensors}

    def params_of(self) -> dict[str, QParams]:
        """Tensor name -> solved parameters."""
        return {t: g.params for g in self.groups if g.params is not None for t in g.tensors}

    def observed(self) -> tuple[str, ...]:
        """Tensors that calibration has to watch."""
        return tuple(t for g in self.groups if g.fixed_range is None for t in g.observed)

    def taken(self) -> tuple[NodePlan, ...]:
        """The nodes that run on integers."""
        return tuple(n for n in self.nodes.values() if n.decision.taken)

    def is_wide(self, node: NodePlan) -> bool:
        """Whether ``node`` reads codes of more than 8 bits."""
        return any(g.spec.qtype.bits > 8 for g in self.groups if set(node.read_tensors) & set(g.tensors))

    def with_groups(self, groups: tuple[Group, ...]) -> QuantPlan:
        """The same plan with other groups."""
        return replace(self, groups=groups)


def same_plan(a: QuantPlan, b: QuantPlan) -> bool:
    """Whether two plans without numbers differ in words at most: reasons, and the times that were measured."""
    return a.groups == b.groups and [_bare(n) for n in a.nodes.values()] == [_bare(n) for n in b.nodes.values()]


def told_as(plan: QuantPlan, other: QuantPlan) -> QuantPlan:
    """``plan`` with the times of ``other``, and its reasons where both decide the same.

    Recovery adds nodes (products with factors), not the same to both.
    """
    nodes = dict(plan.nodes)
    for name, node in ((n, p) for n, p in other.nodes.items() if n in nodes):
        same = _bare(nodes[name]) == _bare(node)
        nodes[name] = replace(nodes[name], times=node.times, decision=node.decision if same else nodes[name].decision)
    return replace(plan, nodes=nodes)


def _bare(node: NodePlan) -> NodePlan:
    return replace(node, times=None, decision=replace(node.decision, reason=""))
