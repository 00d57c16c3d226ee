"""Which nodes could run on integers, and why the others cannot: one :class:`Candidate` a node."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace

from qconvert.errors import RecipeError
from qconvert.graph.edit import whole_of
from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.pooling import is_filter
from qconvert.ops.rule import Kind, OpRule, Role, key, rule_of
from qconvert.recipe.recipe import Recipe
from qconvert.registry import suggest
from qconvert.stats.minmax import SENTINEL
from qconvert.targets.target import Capability, Target

# A table that holds a smaller part of all constants saves no space that anybody would see.
LEAST_TABLE_SHARE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One node before placement.

    Attributes:
        node: the node.
        rule: its operator's rule; None when there is none.
        capability: what the target can do with it.
        objection: why it stays float whatever the placement; "" when it may be quantized.
        table: it picks rows of a constant table.
        weighted: integers pay here; regions grow from it.
        stored: it computes in float, with its weight held as integers.
    """

    node: NodeView
    rule: OpRule | None
    capability: Capability
    objection: str
    table: bool = False
    weighted: bool = False
    stored: bool = False

    @property
    def is_clamp(self) -> bool:
        """Whether it is a Relu or Clip, which vanishes into an integer operator before it."""
        return self.rule is not None and self.rule.kind is Kind.CLAMP


def find_candidates(graph: GraphView, recipe: Recipe, target: Target) -> dict[str, Candidate]:
    """All nodes of ``graph`` by name, each with the reason why it cannot be quantized, if any.

    Raises:
        RecipeError: an include or exclude pattern matches nothing, or a pinned node is not there.
    """
    for option in ("include", "exclude"):
        for pattern in getattr(recipe, option):
            if not any(matches(node, pattern) for node in graph.nodes.values()) and not matches_inside(graph, pattern):
                names = sorted({n.op_type for n in graph.nodes.values()} | set(graph.nodes))
                raise RecipeError(
                    f"--{option} {pattern!r} matches no node name and no operator type",
                    hint=suggest(pattern, names[:40]),
                )
    unknown = [name for name in recipe.pinned_float if name not in graph.nodes]
    if unknown:
        raise RecipeError(
            f"pinned_float names {unknown[0]!r}, which the model does not have",
            hint="a pinned recipe is good for the model that it was saved for; measure this one",
        )
    found = {name: _candidate(graph, node, recipe, target) for name, node in graph.nodes.items()}
    found = {name: _as_codes(graph, c, found, target.integer_only) for name, c in found.items()}
    if target.integer_only or recipe.placement == "all":
        return found
    least = LEAST_TABLE_SHARE * sum(t.elements() for t in graph.tensors.values() if t.is_constant and t.is_float)
    return {name: _worth_storing(graph, c, least) for name, c in found.items()}


def matches(node: NodeView, pattern: str) -> bool:
    """Whether ``pattern`` (a name, a glob or an operator type) selects ``node``."""
    names = (node.name, whole_of(node.name) or node.name)
    return pattern in (node.op_type, *names) or any(fnmatch.fnmatchcase(name, pattern) for name in names)


def rewritten(recipe: Recipe, target: Target) -> frozenset[str]:
    """The operators that preparation writes as others: ``target`` is slow with them, ``recipe`` does not name them."""
    patterns = (e.rpartition("=")[0] for e in (*recipe.mix, *recipe.forms))
    named = {*recipe.include, *recipe.exclude, *patterns}
    return target.rewritten - named


def matches_inside(graph: GraphView, pattern: str) -> bool:
    """Whether ``pattern`` selects a node of a control-flow body of ``graph``."""
    return any(matches_at(place, name, op_type, pattern) for place, name, op_type in graph.inner)


def matches_at(place: str, name: str, op_type: str, pattern: str) -> bool:
    """Whether ``pattern`` selects the node ``name`` of the body at ``place``, which reports call "place/name"."""
    names = (name, f"{place}/{name}")
    return pattern in (op_type, *names) or any(fnmatch.fnmatchcase(n, pattern) for n in names)


def _candidate(graph: GraphView, node: NodeView, recipe: Recipe, target: Target) -> Candidate:
    rule = rule_of(node)
    capability = target.capability(key(node.domain, node.op_type))
    table = rule is not None and rule.table_port is not None and graph.is_constant(node.input(rule.table_port))
    product = node.op_type == "MatMul" and not graph.is_constant(node.input(1))
    if product:
        capability = target.products
    judged = recipe.placement != "all" or target.integer_only or (rule is not None and rule.kind is Kind.RECURRENT)
    objection = _objection(graph, node, rule, capability, recipe, table=table, judged=judged)
    weighted = rule is not None and ((rule.kind is Kind.WEIGHTED and not product) or table)
    return Candidate(
        node=node,
        rule=rule,
        capability=capability,
        objection=objection,
        table=table,
        weighted=weighted,
        stored=capability.weights_only and objection == capability.reason,
    )


def _as_codes(
    graph: GraphView, candidate: Candidate, all_of_them: Mapping[str, Candidate], integer_only: bool
) -> Candidate:
    """A table whose rows only integer operators read is picked from as codes: no row is dequantized."""
    node, rule = candidate.node, candidate.rule
    if not candidate.table or candidate.objection or not candidate.capability.on_codes or rule is None:
        return candidate
    alone = len(graph.tensors[node.input(rule.table_port or 0) or ""].consumers) == 1
    if not integer_only and not (alone and _only_integer_readers(graph, node, all_of_them)):
        return candidate
    return replace(candidate, table=False, weighted=False)


def _worth_storing(graph: GraphView, candidate: Candidate, least: float) -> Candidate:
    """``candidate``, in float where it picks from a table of fewer than ``least`` values: unpacking rows takes time."""
    if not candidate.table or candidate.objection or candidate.rule is None:
        return candidate
    table = graph.tensors[candidate.node.input(candidate.rule.table_port or 0) or ""]
    if table.elements() >= least:
        return candidate
    return replace(candidate, objection="a small table: its rows take longer to unpack than its space is worth")


def _only_integer_readers(
    graph: GraphView, node: NodeView, candidates: Mapping[str, Candidate], depth: int = 3
) -> bool:
    """Whether all that reads ``node``, through a few movement operators, is weighted and reads codes."""
    for tensor in node.outputs:
        view = graph.tensors[tensor]
        if view.is_output or view.captured or not view.consumers:
            return False
        for name, port in view.consumers:
            c = candidates[name]
            if c.objection or c.table or c.rule is None or c.rule.role(port) is not Role.ACTIVATION:
                return False
            moves = c.rule.kind is Kind.MOVEMENT and depth > 0
            if not c.weighted and not (moves and _only_integer_readers(graph, c.node, candidates, depth - 1)):
                return False
    return True


def _objection(
    graph: GraphView,
    node: NodeView,
    rule: OpRule | None,
    capability: Capability,
    recipe: Recipe,
    *,
    table: bool,
    judged: bool,
) -> str:
    """Why ``node`` stays float, "" where nothing speaks against integers; ``judged``: what the target wants counts."""
    if node.op_type == "If" and node.has_bodies:
        return "control flow; its branches are decided on their own"
    if node.has_bodies:
        return "control flow; weights in its body are decided on their own"
    if node.op_type == "Identity":
        return "passes a value on to operators of another integer type"
    if rule is None:
        custom = node.domain not in ("", "ai.onnx")
        return (
            f"operator of the domain {node.domain}, left alone" if custom else "no quantization rule for this operator"
        )
    if recipe.include and not any(matches(node, p) for p in recipe.include):
        return "not among --include"
    if any(matches(node, p) for p in recipe.exclude):
        return "excluded by --exclude"
    if not all(graph.tensors[t].is_float for t in node.outputs if t in graph.tensors and _carries(graph, t)):
        return "it computes no float32 values"
    unwanted = "" if capability.integer or not judged else capability.reason
    if table:
        return _table_objection(graph, node, rule) or unwanted
    for port in rule.ports(Role.ACTIVATION, node):
        tensor = graph.tensors[node.inputs[port] or ""]
        if not tensor.is_float:
            return "its input is not float32"
        if tensor.is_constant and not _finite(graph, tensor.name):
            return "a constant operand holds infinite or mask values"
    if not rule.ports(Role.ACTIVATION, node):
        return "it has no activation input"
    if rule.kind is not Kind.WEIGHTED and all(
        graph.is_constant(node.inputs[p]) for p in rule.ports(Role.ACTIVATION, node)
    ):
        return "it reads constants only"
    for port in rule.ports(Role.WEIGHT, node):
        weight = node.inputs[port]
        if graph.is_constant(weight):
            if not _finite(graph, weight or ""):
                return "its weight holds NaN, infinite or mask values"
        elif node.op_type != "MatMul":
            return "its weight is computed, not constant"
        elif not graph.tensors[weight or ""].is_float:
            return "its right operand is not float32"
    for port in rule.ports(Role.BIAS, node):
        if not graph.is_constant(node.inputs[port]):
            return "its bias is computed, not constant"
        if not _finite(graph, node.inputs[port] or ""):
            return "its bias holds NaN or infinite values"
    if judged and capability.as_filter and not is_filter(graph, node):
        unwanted = capability.reason
    return rule.objection(graph, node) or unwanted


def _carries(graph: GraphView, tensor: str) -> bool:
    view = graph.tensors[tensor]
    return bool(view.consumers) or view.is_output or view.captured


def _table_objection(graph: GraphView, node: NodeView, rule: OpRule) -> str:
    table = node.input(rule.table_port or 0) or ""
    view = graph.tensors[table]
    if not view.is_float or view.rank != 2 or node.attr_int("axis", 0) != 0:
        return "it picks from a constant that is no float table of rows"
    if not _finite(graph, table):
        return "its table holds infinite or mask values"
    if view.captured or view.is_output or not all(_stores_integers(n, port) for n, port in graph.consumers(table)):
        return "its table is needed in float elsewhere, and would be stored twice"
    return ""


def _stores_integers(node: NodeView, port: int) -> bool:
    """Whether ``node`` can read the constant at ``port`` as integers; a Transpose hands it on to a MatMul."""
    rule = rule_of(node)
    if rule is None:
        return False
    return port == rule.table_port or rule.role(port) is Role.WEIGHT or node.op_type == "Transpose"


def _finite(graph: GraphView, tensor: str) -> bool:
    return graph.largest(tensor) < SENTINEL
