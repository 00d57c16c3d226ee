"""Which nodes of a canonical graph each node of an optimized graph computes.

ONNX Runtime fuses nodes, changes layouts and renames. What stays: a fused node bears the name of one of its parts or of
its result, and a result that something else reads keeps its name. So a node of the optimized graph is *anchored* at the
canonical node whose name, or one of whose outputs, it bears. A canonical node without an anchor of its own went into a
neighbour:

- into the node before it, where that is anchored by its own name alone (its result is another one now: Conv + Add +
  Relu) and nothing else reads what lies between them;
- else into the node behind it (Erf into Gelu).

What is anchored nowhere converts: QuantizeLinear, DequantizeLinear, and changes of layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qconvert.graph.optimized import origin
from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Kind, rule_of

CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput"})
# what emission and ONNX Runtime append to the name of a tensor that is held in another form
_SUFFIXES = ("_q", "_dq", "_float", "_codes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Canonical nodes and nodes of an optimized graph.

    Attributes:
        owner: canonical node -> the node of the optimized graph that computes it; nodes that were folded away are
            missing.
        conversions: nodes of the optimized graph that compute nothing of the canonical one.
    """

    owner: Mapping[str, str]
    conversions: frozenset[str]

    def parts(self) -> dict[str, list[str]]:
        """Node of the optimized graph -> the canonical nodes that it computes."""
        found: dict[str, list[str]] = {}
        for name, run in self.owner.items():
            found.setdefault(run, []).append(name)
        return found


def attribute(graph: GraphView, run: GraphView) -> Attribution:
    """Find the owners of the nodes of ``graph``, a canonical graph, in ``run``, what ONNX Runtime made of it."""
    owner: dict[str, str] = {}
    renamed: set[str] = set()
    conversions: set[str] = set()
    for node in run.nodes.values():
        if node.op_type in CONVERSIONS:
            conversions.add(node.name)
            continue
        by_output = {p.name for t in node.outputs if (p := graph.producer(canonical_name(graph, t))) is not None}
        by_name, own = _named_after(graph, node)
        for name in (*by_output, *by_name):
            owner.setdefault(name, node.name)
        if not by_output and own:
            renamed.add(node.name)
        if not by_output and not by_name:
            conversions.add(node.name)
    for name, node in graph.nodes.items():
        if name not in owner and (before := _before(graph, node, owner, renamed)) is not None:
            owner[name] = before
    for name in reversed(list(graph.nodes)):
        if name not in owner:
            readers = [r for t in graph.nodes[name].outputs for r, _ in graph.tensors[t].consumers if t]
            behind = next((owner[r] for r in readers if r in owner), None)
            if behind is not None:
                owner[name] = behind
    return Attribution(owner=owner, conversions=frozenset(conversions))


def canonical_name(graph: GraphView, tensor: str) -> str:
    """The tensor of ``graph`` that ``tensor`` of an optimized graph holds in some form; itself where there is none."""
    if tensor in graph.tensors:
        return tensor
    bare = next((tensor.removesuffix(s) for s in _SUFFIXES if tensor.endswith(s)), tensor)
    return bare if bare in graph.tensors else tensor


def _named_after(graph: GraphView, node: NodeView) -> tuple[tuple[str, ...], bool]:
    """(the canonical node that ``node`` bears the name of, or whose output it does; whether it is the node's own)."""
    name = node.name
    while True:
        if name in graph.nodes:
            same = node.op_type == graph.nodes[name].op_type or node.op_type not in ("Transpose", "Sum", "Cast")
            return ((name,), True) if same else ((), False)
        if (producer := graph.producer(name)) is not None:
            return (producer.name,), False
        shorter = origin(name)
        if shorter == name:
            return (), False
        name = shorter


def _before(graph: GraphView, node: NodeView, owner: Mapping[str, str], renamed: set[str]) -> str | None:
    """The owner of a node before ``node`` that ``node`` went into; an operator with weights goes into none."""
    rule = rule_of(node)
    if rule is not None and rule.kind is Kind.WEIGHTED:
        return None
    for tensor in node.inputs:
        producer = graph.producer(tensor or "")
        if producer is None or owner.get(producer.name) not in renamed:
            continue
        view = graph.tensors[tensor or ""]
        if len(view.consumers) == 1 and not view.is_output:
            return owner[producer.name]
    return None
