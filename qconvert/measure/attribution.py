"""Which nodes of a canonical graph each node of an optimized graph computes.

ONNX Runtime fuses nodes, changes layouts and renames. What stays: a fused node bears the name of one of its parts or of
its result, and a result that something else reads keeps its name. So a node of the optimized graph is *anchored* at the
canonical node whose name, or one of whose outputs, it bears. A canonical node without an anchor of its own went into a
neighbour:

- into the node before it, where that is anchored by its name alone (its result is another one now: Conv + Add + Relu)
  and all that read what lies between them lack an anchor, too (Conv + HardSigmoid + Mul);
- else into the node behind it (Erf into Gelu).

Nodes and tensors may have the same names, and ONNX Runtime names some fused nodes after tensors; so models are profiled
with names of nodes that no tensor has (:func:`marked`).

What is anchored nowhere converts: QuantizeLinear, DequantizeLinear, and changes of layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from qconvert.graph.edit import whole_of
from qconvert.graph.optimized import origin
from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Kind, rule_of

CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ReorderInput", "ReorderOutput"}
)
_MARK = "@node"
# what emission appends to the name of a tensor that is held in another form
_SUFFIXES = ("_q", "_dq", "_float", "_codes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Canonical nodes and nodes of an optimized graph.

    Attributes:
        owner: canonical node -> the node of the optimized graph that computes it; nodes that were folded away are
            missing.
        conversions: nodes of the optimized graph that compute nothing of the canonical one.
        helpers: nodes of the optimized graph -> the owner that they do a part of the work of.
    """

    owner: Mapping[str, str]
    conversions: frozenset[str]
    helpers: Mapping[str, str] = field(default_factory=dict)

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
    for node in run.nodes.values():
        if node.op_type in CONVERSIONS:
            continue
        by_output = {p.name for t in node.outputs if (p := graph.producer(canonical_name(graph, t))) is not None}
        by_name = _named_after(graph, node)
        for name in (*by_output, *by_name):
            owner.setdefault(name, node.name)
        if not by_output:
            renamed.add(node.name)
    order = {name: i for i, name in enumerate(run.nodes)}
    anchored = frozenset(owner)
    for name, node in graph.nodes.items():
        if name not in owner and (before := _before(graph, node, owner, renamed, order, anchored)) is not None:
            owner[name] = before
    for name in reversed(list(graph.nodes)):
        if name not in owner:
            readers = [r for t in graph.nodes[name].outputs for r, _ in graph.tensors[t].consumers if t]
            behind = next((owner[r] for r in readers if r in owner), None)
            if behind is not None:
                owner[name] = behind
    wholes = {name: whole_of(name) for name in run.nodes}
    helpers = {name: owner[whole] for name, whole in wholes.items() if whole in owner}
    return Attribution(
        owner=owner, conversions=frozenset(run.nodes) - set(owner.values()) - set(helpers), helpers=helpers
    )


def canonical_name(graph: GraphView, tensor: str) -> str:
    """The tensor of ``graph`` that ``tensor`` of an optimized graph holds in some form; itself where there is none."""
    if tensor in graph.tensors:
        return tensor
    bare = next((tensor.removesuffix(s) for s in _SUFFIXES if tensor.endswith(s)), tensor)
    return bare if bare in graph.tensors else tensor


def result_of(graph: GraphView, tensor: str) -> str:
    """:func:`canonical_name`, also where ONNX Runtime has changed layouts: results bear the names of nodes there."""
    maker = graph.nodes.get(tensor.removesuffix(_MARK)) if tensor.endswith(_MARK) else None
    return maker.outputs[0] if maker is not None and len(maker.outputs) == 1 else canonical_name(graph, tensor)


def marked(name: str) -> str:
    """The name of a node in a model that is profiled."""
    return f"{name}{_MARK}"


def _named_after(graph: GraphView, node: NodeView) -> tuple[str, ...]:
    """The canonical node that ``node`` bears the name of, or whose output it does."""
    name = node.name
    while True:
        if name.endswith(_MARK):
            own = name.removesuffix(_MARK)
            return (own,) if own in graph.nodes else ()
        if (producer := graph.producer(name)) is not None:
            return (producer.name,)
        shorter = origin(name)
        if shorter == name:
            return ()
        name = shorter


def _before(
    graph: GraphView,
    node: NodeView,
    owner: Mapping[str, str],
    renamed: Set[str],
    order: Mapping[str, int],
    anchored: Set[str],
) -> str | None:
    """The owner of a node before ``node`` that ``node`` went into; an operator with weights goes into none.

    Of two (both operands of a residual Add), the one that runs last: it needs the other's result.
    """
    rule = rule_of(node)
    if rule is not None and rule.kind is Kind.WEIGHTED:
        return None
    found = []
    for tensor in node.inputs:
        producer = graph.producer(tensor or "")
        before = owner.get(producer.name) if producer is not None else None
        view = graph.tensors.get(tensor or "")
        if before not in renamed or view is None or view.is_output:
            continue
        if not any(reader in anchored for reader, _ in view.consumers):
            found.append(before)
    return max((b for b in found if b is not None), key=order.__getitem__, default=None)
