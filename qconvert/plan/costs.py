"""Static estimates of what a node and a boundary cost, from the target's table and the shapes.

    cost(node) = ns per output element (of the kernel) x output elements
    cost(Q)    = quantize_ns x elements of the tensor            likewise DequantizeLinear

An unknown first dimension is a batch and counts as 1, others count as :data:`UNKNOWN_DIM`: only the proportions of
costs around one tensor matter, and they have it in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qconvert.graph.view import GraphView, NodeView
from qconvert.targets.target import Capability, Target

UNKNOWN_DIM = 32

# What running a node at all costs, in ns: ONNX Runtime's executor takes about a microsecond a node.
NODE_NS = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Cost estimates for one graph on one target, in ns."""

    graph: GraphView
    target: Target

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
        """A Conv by its shape (:class:`~qconvert.targets.target.ConvolutionCosts`); None when a size is unknown.

        pixels x taps x channels in x channels out (rounded up to the lane) x ps, and what gathering inputs costs
        """
        model = self.target.convolutions
        weight = self.graph.tensors.get(node.input(1) or "")
        out = self.graph.tensors.get(node.outputs[0])
        if model is None or weight is None or out is None or weight.shape is None or out.shape is None:
            return None
        sizes = [d for d in weight.shape if isinstance(d, int)]
        space = [d for d in out.shape[2:] if isinstance(d, int)]
        if len(sizes) < 3 or len(sizes) != len(weight.shape) or len(space) != len(sizes) - 2:
            return None
        batch = out.shape[0] if isinstance(out.shape[0], int) else 1
        pixels, taps = batch * math.prod(space), math.prod(sizes[2:])
        channels, each, group = sizes[0], sizes[1], node.attr_int("group", 1)
        rounded = -(-channels // model.lane) * model.lane
        if group > 1 and each == 1:
            ps = model.depthwise_integer_ps if integer else model.depthwise_float_ps
            odd = model.odd_depthwise if integer and channels % model.lane else 1.0
            return NODE_NS + pixels * taps * rounded * ps * odd / 1000
        if group > 1:
            return None
        macs = pixels * taps * each * rounded
        if not integer:
            return NODE_NS + macs * model.float_ps / 1000
        gather = next(ns for most, ns in model.gather_ns if each <= most) if taps > 1 else 0.0
        odd = model.odd_ns if channels % model.lane else 0.0
        return NODE_NS + macs * model.integer_ps / 1000 + pixels * (gather + odd)
