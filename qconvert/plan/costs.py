"""What nodes and boundaries cost: the interface, and static estimates from the target's table and the shapes.

    cost(node) = ns per output element (of the kernel) x output elements
    cost(Q)    = quantize_ns x elements of the tensor            likewise DequantizeLinear

An unknown first dimension is a batch and counts as 1, others count as :data:`UNKNOWN_DIM`: only the proportions of
costs around one tensor matter, and they have it in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Role
from qconvert.plan.candidates import Candidate
from qconvert.plan.convolutions import convolution_ns, shape_of
from qconvert.plan.folding import fold_of
from qconvert.targets.target import Capability, Target

UNKNOWN_DIM = 32

# What running a node at all costs, in ns: ONNX Runtime's executor takes about a microsecond a node.
NODE_NS = 1000.0

# Weights of fewer elements are not stored as integers where they are computed with in float: the nodes that unpack them
# take about as many bytes as that saves.
LEAST_STORED = 512

# A convolution goes float only where the estimate says that it gains much: estimates are off by a third at times.
MARGIN = 1.35
MARGIN_NS = 5000.0
# And only where it holds a small share of the weights: the file must shrink, too.
MOST_WEIGHTS = 0.02


class Costs(Protocol):
    """What each node costs on either side, and each boundary; in ns."""

    def group(self, name: str) -> str:
        """The group of the node called ``name``; nodes of one group are on one side."""
        ...

    def in_float(self, candidate: Candidate) -> float | None:
        """Running a node in float; None where it must run on integers."""
        ...

    def on_integers(self, candidate: Candidate) -> float:
        """Running a node on integers."""
        ...

    def float_before(self, candidate: Candidate) -> Iterable[str]:
        """Nodes that have to be float if this one is."""
        ...

    def quantize(self, tensor: str) -> float:
        """A QuantizeLinear on ``tensor``, with what changes its layout."""
        ...

    def dequantize(self, tensor: str) -> float:
        """A DequantizeLinear on ``tensor``, with what changes its layout."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticCosts:
    """Estimates for one graph on one target.

    A weighted operator runs on integers, but for the first convolutions of a net, which may be slower so: they read few
    channels, which integer kernels are bad at. No convolution goes float behind an integer one: that would make a float
    island, whose two boundaries the estimates are too coarse to weigh.

    Attributes:
        graph, target, candidates: what is placed, and where it runs.
        most_weights: elements of the largest weight that may stay float.
    """

    graph: GraphView
    target: Target
    candidates: Mapping[str, Candidate]
    most_weights: float

    @classmethod
    def of(cls, graph: GraphView, target: Target, candidates: Mapping[str, Candidate]) -> StaticCosts:
        """The estimates for ``graph``."""
        most = MOST_WEIGHTS * sum(weight_elements(graph, c) for c in candidates.values())
        return cls(graph=graph, target=target, candidates=candidates, most_weights=most)

    def group(self, name: str) -> str:
        """Every node by itself."""
        return name

    def in_float(self, candidate: Candidate) -> float | None:
        """Running a node in float."""
        if not candidate.weighted:
            return self.node(candidate.node, candidate.capability, integer=False)
        estimate = self._first_convolution(candidate)
        return None if estimate is None else estimate[0] * MARGIN + MARGIN_NS

    def on_integers(self, candidate: Candidate) -> float:
        """Running a node on integers."""
        if not candidate.weighted:
            return self.node(candidate.node, candidate.capability, integer=True)
        estimate = self._first_convolution(candidate)
        return 0.0 if estimate is None else estimate[1]

    def float_before(self, candidate: Candidate) -> Iterable[str]:
        """The nearest weighted operators whose results reach a convolution that may stay float."""
        if not candidate.weighted or self._first_convolution(candidate) is None:
            return ()
        found: set[str] = set()
        waiting, seen = [candidate.node], {candidate.node.name}
        while waiting:
            for tensor in waiting.pop().inputs:
                producer = self.graph.producer(tensor or "")
                if producer is None or producer.name in seen:
                    continue
                seen.add(producer.name)
                before = self.candidates[producer.name]
                if before.weighted and not before.objection:
                    found.add(producer.name)
                else:
                    waiting.append(producer)
        return found

    def _first_convolution(self, candidate: Candidate) -> tuple[float, float] | None:
        """(float, integer) cost of a convolution that may stay float; None for what may not."""
        if candidate.node.op_type != "Conv" or weight_elements(self.graph, candidate) > self.most_weights:
            return None
        in_float = self.convolution(candidate.node, integer=False)
        on_integers = self.convolution(candidate.node, integer=True)
        return None if in_float is None or on_integers is None else (in_float, on_integers)

    def _elements(self, tensor: str) -> int:
        view = self.graph.tensors.get(tensor)
        if view is None or view.shape is None:
            return 1
        sizes = [d if isinstance(d, int) else UNKNOWN_DIM for d in view.shape]
        if sizes and not isinstance(view.shape[0], int):
            sizes[0] = 1
        return math.prod(sizes)

    def node(self, node: NodeView, capability: Capability, *, integer: bool) -> float:
        """Running ``node`` as integers or float."""
        work = max((self._elements(t) for t in node.outputs if t), default=1)
        if node.op_type in ("GlobalAveragePool", "AveragePool") and node.inputs[0]:
            work = max(work, self._elements(node.inputs[0]) // (1 if node.op_type == "GlobalAveragePool" else 4))
        return NODE_NS + work * (capability.integer_ns if integer else capability.float_ns)

    def quantize(self, tensor: str) -> float:
        """A QuantizeLinear on ``tensor``."""
        return NODE_NS + self.target.quantize_ns * self._elements(tensor)

    def dequantize(self, tensor: str) -> float:
        """A DequantizeLinear on ``tensor``."""
        return NODE_NS + self.target.dequantize_ns * self._elements(tensor)

    def convolution(self, node: NodeView, *, integer: bool) -> float | None:
        """A Conv by its shape, folded where that pays; None when a size is unknown."""
        costs, shape = self.target.convolutions, shape_of(self.graph, node)
        if costs is None or shape is None:
            return None
        fold = fold_of(self.graph, node, costs) if integer else None
        return fold.ns if fold is not None and fold.pays else convolution_ns(shape, costs, integer=integer)


def weight_elements(graph: GraphView, candidate: Candidate) -> int:
    """Elements of the constant weight of a weighted candidate; 0 for what cannot be quantized."""
    if candidate.objection or not candidate.weighted or candidate.rule is None:
        return 0
    names = [candidate.node.inputs[p] or "" for p in candidate.rule.ports(Role.WEIGHT, candidate.node)]
    return sum(graph.tensors[t].elements() for t in names if graph.is_constant(t))
