"""Static estimates of what a node and a boundary cost, from the target's table and the shapes.

    cost(node) = ns per output element (of the kernel) x output elements
    cost(Q)    = quantize_ns x elements of the tensor            likewise DequantizeLinear

Unknown dimensions count as :data:`UNKNOWN_DIM`: only the proportions of costs around one tensor matter, and they have
it in common.
"""

from __future__ import annotations

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
        return view.elements(UNKNOWN_DIM) if view is not None else 1

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
