"""Constant folding and graph rewrites by onnxscript's optimizer.

Its defaults leave constants beyond 8192 elements alone; weights behind Identity, Reshape, Transpose or arithmetic are
just those, so folding is allowed wherever the result is no larger than what goes in. What would grow (Expand, Tile,
a long ConstantOfShape) keeps the default limit: a small file does not become a large one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import onnxscript.optimizer
import onnxscript.rewriter
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    LiftConstantsToInitializersPass,
)

from qconvert.graph.edit import constant_of, remove_unused

# onnxscript's own limit for the inputs of a folded node, in elements
_ALWAYS_FOLDED = 8192

# what ConstantOfShape makes is folded up to this many elements: the pads and shapes that exporters compute by it
_SHORT = 64

# folding and rewriting enable each other; onnxscript's own optimizer takes two rounds
_ROUNDS = 2

# the longest chain that a rewrite rule fuses into one node
_FUSED_NODES = 4

# a matrix below this size, in elements, costs less twice than the Transpose between the two
_TIED = 1024

_KEEPS_SIZE = frozenset(
    """Identity Reshape Transpose Squeeze Unsqueeze Flatten Cast Slice Split Concat Neg Abs Sqrt Exp Reciprocal
    Add Sub Mul Div Pow Min Max Gather DepthToSpace SpaceToDepth ReduceSum ReduceMean""".split()
)


def _should_fold(node: ir.Node) -> bool | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "ConstantOfShape":
        shape = constant_of(node.inputs[0])
        return True if shape is not None and math.prod(shape.tolist()) <= _SHORT else None
    if node.op_type not in _KEEPS_SIZE:
        return None
    read = [(v, v.const_value.size) for v in node.inputs if v is not None and v.const_value is not None]
    if node.op_type == "Transpose" and any(size > _TIED and len(v.uses()) > 1 for v, size in read):
        return False  # a tied weight (embedding and transposed output matrix) must stay one tensor
    return True if sum(size for _, size in read) > _ALWAYS_FOLDED else None


def fold_and_fuse(model: ir.Model, *, rewrite: bool) -> None:
    """Fold constants; with ``rewrite``, fuse BatchNormalization and Pad into convolutions and drop no-ops. In place.

    These are the steps of ``onnxscript.optimizer.optimize`` without those that move weights out of control-flow bodies
    or rename inputs.
    """
    names = _names_by_output(model.graph)
    rewritten = True
    for _ in range(_ROUNDS if rewrite else 1):
        folded = onnxscript.optimizer.fold_constants(model, should_fold=_should_fold).modified
        _drop_later_attributes(model)
        if rewrite and (folded or rewritten):  # where nothing has changed since, no rule applies that did not before
            before = tuple(model.graph)
            onnxscript.rewriter.rewrite(model, _rules(model))
            _drop_later_attributes(model)
            rewritten = before != tuple(model.graph)
    if rewrite:
        remove_unused(model)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        CommonSubexpressionEliminationPass()(model)
        _name_replacements(model.graph, names)


def _rules(model: ir.Model) -> list[onnxscript.rewriter.RewriteRule]:
    """onnxscript's own rules, without the one for two Slices where there are no two.

    Its matcher goes through the whole graph for every node (0.7.2): of 19 s for 6000 nodes 14 went there.
    """
    rules = onnxscript.rewriter._DEFAULT_REWRITE_RULES
    slices = sum(node.op_type == "Slice" for node in model.graph.all_nodes())
    return [rule for rule in rules if slices > 1 or rule.name != "SlicesSplit"]


def _drop_later_attributes(model: ir.Model) -> None:
    """onnxscript writes attributes that the model's opset has not got yet; drop them where they say nothing.

    ``num_outputs`` of Split (opset 18) is no more than the number of outputs, where the parts are equal; ``allowzero``
    of Reshape (opset 14) matters only for a 0 in the shape.
    """
    opset = model.opset_imports.get("", 0)
    for node in model.graph:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Split" and opset < 18:
            node.attributes.pop("num_outputs", None)
        if node.op_type == "Reshape" and opset < 14 and "allowzero" in node.attributes and not _shape_has_zero(node):
            node.attributes.pop("allowzero")


def _shape_has_zero(reshape: ir.Node) -> bool:
    if reshape.attributes["allowzero"].value == 0:
        return False
    shape = ir.convenience.get_const_tensor(reshape.inputs[1]) if reshape.inputs[1] is not None else None
    return shape is None or not shape.numpy().all()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """Name and type of the node that made a value, and the value that it read first."""

    name: str
    op_type: str
    source: str | None


def _names_by_output(graph: ir.Graph) -> dict[str, _Origin]:
    def source(node: ir.Node) -> str | None:
        return node.inputs[0].name if node.inputs and node.inputs[0] is not None else None

    return {
        v.name: _Origin(name=n.name or "", op_type=n.op_type, source=source(n))
        for n in graph
        for v in n.outputs
        if v.name
    }


def _name_replacements(graph: ir.Graph, origins: Mapping[str, _Origin]) -> None:
    """Give a node that replaces others the name of the one it does the work of: the Conv of a fused Conv -
    BatchNormalization is called as the Conv was, whatever value it makes."""
    known = {o.name for o in origins.values()}
    taken = {n.name for n in graph if n.name in known}
    for node in graph:
        made = origins.get(node.outputs[0].name or "")
        if node.name in known or made is None:
            continue
        same, steps = made, 0
        while same.op_type != node.op_type and steps < _FUSED_NODES and (before := origins.get(same.source or "")):
            same, steps = before, steps + 1
        name = same.name if same.op_type == node.op_type else made.name
        if name and name not in taken:
            node.name = name
            taken.add(name)
