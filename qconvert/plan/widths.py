"""Nodes with integer types of their own: static schemes mixed in one plan (``mix: ["/head*=a16w8"]``).

A node's types are those of the last entry of the recipe that fits it, or the recipe's own; what moves or clamps values,
and is not named, has those of what makes them. A tensor has the types of the node that makes it. A reader of others
reads it through a *seam*, an Identity in the canonical graph, which computes in float:

    narrow -> T -> wide      becomes      narrow -> T -> Identity -> T' -> wide
    written:                 T -> QuantizeLinear(8) -> DequantizeLinear -> QuantizeLinear(16) -> DequantizeLinear

so that a tensor still has one scale, and a float tensor is rounded once for either side. Constants are copied instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops.rule import Kind, Role, rule_of
from qconvert.plan.candidates import matches
from qconvert.recipe.recipe import Recipe
from qconvert.recipe.resolve import IntegerTypes, static_mix, types_for
from qconvert.targets.target import Target

SEAM = "Identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """The integer types of every node and tensor of ``graph``.

    Attributes:
        graph: the canonical graph.
        own: the recipe's types.
        others: nodes that have other ones.
    """

    graph: GraphView
    own: IntegerTypes
    others: Mapping[str, IntegerTypes]

    def of(self, node: str) -> IntegerTypes:
        """The types of ``node``."""
        return self.others.get(node, self.own)

    def of_tensor(self, tensor: str) -> IntegerTypes:
        """The types of ``tensor``: its producer's; of inputs, constants and seams those of its readers."""
        producer = self.graph.producer(tensor)
        if producer is not None and producer.op_type != SEAM and not self.graph.is_constant(tensor):
            return self.of(producer.name)
        return next((self.of(n.name) for n, port in self.graph.consumers(tensor) if _rounds(n, port)), self.own)

    def of_tensors(self, tensors: Sequence[str]) -> IntegerTypes:
        """The types of tensors that share a scale: those of most bits."""
        found = [self.of_tensor(t) for t in tensors]
        return next((t for t in found if t.wide), found[0])


def widths_of(graph: GraphView, recipe: Recipe, target: Target) -> Widths:
    """The types that ``recipe`` gives to the nodes of ``graph``.

    Raises:
        RecipeError: ``target`` does not run one of the schemes.
    """
    own, entries = types_for(recipe, target), static_mix(recipe)
    if not entries:
        return Widths(graph=graph, own=own, others={})
    kinds = {s: types_for(of_scheme(recipe, s), target) for s in dict.fromkeys(s for _, s in entries)}
    found: dict[str, IntegerTypes] = {}
    for name, node in graph.nodes.items():
        fits = [s for pattern, s in _entries(recipe) if matches(node, pattern)]
        rule = rule_of(node)
        if fits:
            if fits[-1] in kinds:
                found[name] = kinds[fits[-1]]
        elif rule is not None and rule.kind in (Kind.MOVEMENT, Kind.CLAMP):
            producer = graph.producer(node.inputs[0] or "")
            if producer is not None and producer.name in found:
                found[name] = found[producer.name]
    return Widths(graph=graph, own=own, others={n: t for n, t in found.items() if t != own})


def of_scheme(recipe: Recipe, scheme: str) -> Recipe:
    """``recipe`` with another static scheme as its own, and the types of that."""
    return recipe if scheme == recipe.scheme else replace(recipe, scheme=scheme, activations=None, weights=None)


def seams(widths: Widths) -> dict[str, tuple[tuple[str, int], ...]]:
    """Tensor -> the (node, port)s that read it with activations of another type than it has, in graph order."""
    graph = widths.graph
    if not widths.others:
        return {}
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for name, tensor in graph.tensors.items():
        if not tensor.is_float:
            continue
        mine = widths.of_tensor(name).activations
        other = tuple(
            (node.name, port)
            for node, port in graph.consumers(name)
            if _rounds(node, port) and widths.of(node.name).activations != mine
        )
        if other:
            found[name] = other
    return found


def _entries(recipe: Recipe) -> list[tuple[str, str]]:
    """(pattern, scheme) of ``recipe.mix``, of whatever scheme."""
    return [(pattern, scheme) for pattern, _, scheme in (entry.rpartition("=") for entry in recipe.mix)]


def _rounds(node: NodeView, port: int) -> bool:
    """Whether ``node`` reads codes at ``port`` if it runs on integers."""
    rule = rule_of(node)
    if rule is None:
        return False
    computed = node.op_type == "MatMul" and rule.role(port) is Role.WEIGHT
    return rule.role(port) is Role.ACTIVATION or computed
