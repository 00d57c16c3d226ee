"""What a plan puts on integers and ONNX Runtime runs in float all the same, by the graph that it makes of the model.

A planned integer node P ran on integers if the node of the optimized graph that does its work is an integer kernel, or
reads codes where P does. ONNX Runtime keeps the names of nodes that it fuses, mostly; where it does not, the node is
found by what it makes: the optimized node X does the work of every node of the written graph between X's inputs and
X's outputs. What is found by neither way has been merged with an equal node, or folded, and stands nowhere.

    codes(t) = t is made by QuantizeLinear, by an integer kernel, or by an operator whose first input holds codes,
               or t is an integer constant
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qconvert.graph.boundary import dequantizers, quantizers
from qconvert.graph.census import is_integer_kernel
from qconvert.graph.optimized import origin
from qconvert.graph.view import GraphView, NodeView
from qconvert.plan.model import NodePlan, QuantPlan

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_CODES = ("int8", "uint8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A planned integer node that runs in float.

    Attributes:
        node: its name in the plan.
        how: what was found in its place ("Split between DequantizeLinear and QuantizeLinear").
    """

    node: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What of a plan's conversions ONNX Runtime did not fuse.

    Attributes:
        standing: planned integer nodes in float.
        conversions: QuantizeLinear and DequantizeLinear nodes of the optimized graph, those on constants included.
    """

    standing: tuple[Standing, ...]
    conversions: int


def leftovers(written: GraphView, run: GraphView, plan: QuantPlan) -> Leftovers:
    """Compare a plan with what became of it.

    Args:
        written: the quantized model, as emitted.
        run: the same, as ONNX Runtime's fusions leave it.
        plan: what was written.
    """
    planned = {p.node: p for p in plan.taken() if p.activations and p.absorbed_into is None}
    codes = _codes(run)
    found: dict[str, str] = {}
    for node in run.nodes.values():
        if node.op_type in (_QUANTIZE, _DEQUANTIZE) or is_integer_kernel(node.op_type):
            continue
        for p in _work_of(node, written, planned):
            ports = p.activations if p.op_type == node.op_type else range(len(node.inputs))
            if not any(node.input(port) in codes for port in ports):
                found[p.node] = _how(run, node)
    on_constants = sum(n.op_type == _DEQUANTIZE and run.is_constant(n.input(0)) for n in run.nodes.values())
    return Leftovers(
        standing=tuple(Standing(node=name, how=found[name]) for name in planned if name in found),
        conversions=len(quantizers(run)) + len(dequantizers(run)) + on_constants,
    )


def channels_first(run: GraphView) -> frozenset[str]:
    """The MaxPools of codes that ``run`` computes with channels first, by their names before optimization.

    Args:
        run: the graph as ONNX Runtime runs it, layouts and all.
    """
    codes = _codes(run)
    return frozenset(origin(n.name) for n in run.nodes.values() if n.op_type == "MaxPool" and n.input(0) in codes)


def _codes(graph: GraphView) -> set[str]:
    """Tensors that hold integer codes; the optimized graph does not say the types of what is computed."""
    found = {name for name, t in graph.tensors.items() if t.is_constant and t.dtype in _CODES}
    for node in graph.nodes.values():
        passed_on = node.op_type != _DEQUANTIZE and node.input(0) in found
        if node.op_type == _QUANTIZE or passed_on or is_integer_kernel(node.op_type):
            found.update(node.outputs)
    return found


def _work_of(node: NodeView, written: GraphView, planned: Mapping[str, NodePlan]) -> list[NodePlan]:
    """The planned nodes whose work ``node`` of the optimized graph does."""
    name = origin(node.name)
    if name in planned:
        return [planned[name]]
    if name in written.nodes:
        return []
    found: list[NodePlan] = []
    waiting, seen = list(node.outputs), {*node.inputs}
    while waiting:
        tensor = waiting.pop()
        producer = written.producer(tensor) if tensor not in seen else None
        seen.add(tensor)
        if producer is None or producer.op_type in (_QUANTIZE, _DEQUANTIZE):
            continue
        if producer.name in planned:
            found.append(planned[producer.name])
        waiting += [t for t in producer.inputs if t]
    return found


def _how(run: GraphView, node: NodeView) -> str:
    sources = [run.producer(name or "") for name in node.inputs]
    before = any(s is not None and s.op_type == _DEQUANTIZE and not run.is_constant(s.input(0)) for s in sources)
    behind = any(r.op_type == _QUANTIZE for t in node.outputs for r, _ in run.consumers(t))
    where = {
        (True, True): f"between {_DEQUANTIZE} and {_QUANTIZE}",
        (True, False): f"behind {_DEQUANTIZE}",
        (False, True): f"before {_QUANTIZE}",
        (False, False): "among float operators",
    }[before, behind]
    return f"{node.op_type} stands {where}"
