"""Attention without what its algebra makes unnecessary, and with its tokens first.

With X [batch, tokens, channels], heads h, and W, b the weights and biases of its products,

    softmax(c q (k + b)^T + m)  =  softmax(c q k^T + m)             q b^T is the same for all keys of a query
    softmax(s) (v + b) W + d    =  softmax(s) v W + (b W + d)       rows of a softmax sum to one
    (X W + b) f                 =  X (W f) + b f                    f one value, behind the heads' Transpose

hold for any of them (Vaswani et al. 2017, equation 1), so these biases and factors go into constants, by
:func:`lighter_attention`.

    X -> Transpose (1, 0, 2) -> product -> Reshape [tokens, batch, h, d] -> Transpose (1, 2, 0, 3)
    X -> product -> Reshape [batch, tokens, h, d] -> Transpose (0, 2, 1, 3)

are the same, too, and :func:`tokens_first` makes one of the other. ONNX Runtime's product of two activations reads the
first where it lies (FusedMatMul, transBatchA and transBatchB: a Transpose that takes the first dimension to the last
but one), so the Transposes of queries, keys and values in float become one of what they are made of: it moves codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qconvert.graph.edit import (
    add_initializer,
    constant_of,
    maker_of,
    part_of,
    perm_of,
    reader_of,
    replace_by,
    sizes_of,
    sole_maker,
)
from qconvert.graph.prepare.affine import Affine, affine_of
from qconvert.graph.prepare.linear import Linear, linear_of

# Where the heads' Transposes take batch, tokens, heads and their channels; the second for keys.
HEADS, _KEYS = (0, 2, 1, 3), (0, 2, 3, 1)
# What makes keys of heads.
_LAST_TWO = (0, 1, 3, 2)
# The same from [tokens, batch, heads, channels].
_TOKENS_FIRST: dict[tuple[int, ...], tuple[int, ...]] = {HEADS: (1, 2, 0, 3), _KEYS: (1, 2, 3, 0)}
# Dimensions of heads.
_RANK = 4
# Softmax is over one axis from this opset on.
_SOFTMAX_OPSET = 13
# Operators between scores and their Softmax, at most: a factor, a position bias, a mask.
_MOST_BETWEEN = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Projection:
    """An operand of a product of heads: x -> linear -> reshape -> transpose.

    Attributes:
        linear: what makes [batch, tokens, heads * each], which nothing else reads, but for its shape.
        reshape: from there to [batch, tokens, heads, each].
        transpose: from there to [batch, heads, tokens, each], or keys [batch, heads, each, tokens].
        heads: (heads, each).
    """

    linear: Linear
    reshape: ir.Node
    transpose: ir.Node
    heads: tuple[int, int]

    @property
    def result(self) -> ir.Value:
        """[batch, tokens, heads * each]."""
        return self.linear.nodes()[-1].outputs[0]


def lighter_attention(model: ir.Model) -> None:
    """Move what attention can do without into constants, in place."""
    graph = model.graph
    for node in list(graph):
        if not _is_product_of_heads(node):
            continue
        for value in list(node.inputs):
            _with_one_transpose(graph, value)
            _with_factor_inside(graph, value)
        second = _projection(node.inputs[1])
        bias = second.linear.bias if second is not None else None
        if second is None or bias is None or model.opset_imports.get("", 0) < _SOFTMAX_OPSET:
            continue
        if perm_of(second.transpose) == _KEYS and _is_normalized(node.outputs[0]):
            replace_by(second.linear.product.outputs[0], bias.add)
        elif perm_of(second.transpose) == HEADS and _is_softmax(maker_of(node.inputs[0])):
            after = _linear_behind(node, second.heads)
            if after is not None and after.bias is not None:
                after.bias.set(graph, after.bias.values + bias.values @ after.weight)
                replace_by(second.linear.product.outputs[0], bias.add)


def tokens_first(model: ir.Model) -> list[str]:
    """Turn what the operands of products of heads are made of, in place of the heads.

    Returns:
        What to tell of it; nothing where there is none.
    """
    graph = model.graph
    found = [p for node in graph if _is_product_of_heads(node) for p in map(_projection, node.inputs) if p is not None]
    for projection in found:
        shape, name = np.array([0, 0, *projection.heads], np.int64), f"{projection.reshape.name}_shape"
        projection.reshape.replace_input_with(1, add_initializer(graph, name, shape))
        projection.reshape.attributes.pop("allowzero", None)
    turned = 0
    for x in dict.fromkeys(p.linear.x for p in found):
        together = [p for p in found if p.linear.x is x]
        if len(together) >= 2 and all(_can_turn(p) for p in together):
            _turn(graph, x, together)
            turned += len(together)
    note = f"{turned} operands of attention with their tokens first: the runtime's products read heads where they lie"
    return [note] if turned else []


def _is_product_of_heads(node: ir.Node) -> bool:
    standard = node.op_type == "MatMul" and node.domain in ("", "ai.onnx")
    return standard and all(constant_of(v) is None for v in node.inputs)


def _projection(value: ir.Value | None) -> _Projection | None:
    """What makes ``value``, where that is a projection to heads."""
    transpose = sole_maker(value)
    if transpose is None or transpose.op_type != "Transpose" or perm_of(transpose) not in _TOKENS_FIRST:
        return None
    reshape = sole_maker(transpose.inputs[0])
    if reshape is None or reshape.op_type != "Reshape":
        return None
    linear, split = linear_of(reshape.inputs[0]), sizes_of(reshape.outputs[0])
    if linear is None or split is None or len(split) != 4:
        return None
    result = linear.nodes()[-1].outputs[0]
    whole, heads, each = sizes_of(result), *split[2:]
    if whole is None or len(whole) != 3 or whole[:2] != split[:2]:
        return None
    if not isinstance(heads, int) or not isinstance(each, int) or heads * each != linear.weight.shape[1]:
        return None
    if result.is_graph_output() or any(u.node.op_type != "Shape" for u in result.uses() if u.node is not reshape):
        return None
    return _Projection(linear=linear, reshape=reshape, transpose=transpose, heads=(heads, each))


def _with_one_transpose(graph: ir.Graph, value: ir.Value | None) -> None:
    """Let one Transpose make keys where two do, a factor behind them or not."""
    second = sole_maker(value)
    factor = _factor(second)
    if factor is not None:
        second = sole_maker(factor.x)
    first = sole_maker(second.inputs[0]) if second is not None and second.op_type == "Transpose" else None
    if first is None or second is None or first.op_type != "Transpose":
        return
    if perm_of(first) == HEADS and perm_of(second) == _LAST_TWO:
        first.attributes["perm"] = ir.AttrInt64s("perm", _KEYS)
        replace_by(first.outputs[0], second)


def _with_factor_inside(graph: ir.Graph, value: ir.Value | None) -> None:
    """Let the constants of a projection take the factor in that stands behind it, in front of a product of heads."""
    factor = _factor(sole_maker(value))
    projection = _projection(factor.x) if factor is not None else None
    if factor is None or projection is None:
        return
    linear = projection.linear
    linear.scale_weight(graph, factor.factor.item())
    if linear.bias is not None:
        linear.bias.set(graph, linear.bias.values * factor.factor.item())
    replace_by(factor.x, factor.node)


def _factor(node: ir.Node | None) -> Affine | None:
    """What ``node`` does, if it multiplies an activation of heads by one constant."""
    found = affine_of(node) if node is not None else None
    alone = found is not None and found.uniform and not found.shift.any() and found.factor.ndim <= _RANK
    return found if alone else None


def _is_softmax(node: ir.Node | None) -> bool:
    """Whether ``node`` is a Softmax over the last axis."""
    if node is None or node.op_type != "Softmax" or node.outputs[0].shape is None:
        return False
    return node.attributes.get_int("axis", -1) in (-1, len(node.outputs[0].shape) - 1)


def _is_normalized(scores: ir.Value) -> bool:
    """Whether a Softmax over the last axis is all that comes of ``scores``, times a factor and with summands."""
    for node, _ in _readers(scores, _MOST_BETWEEN):
        if node.op_type == "Softmax":
            return _is_softmax(node)
        if node.op_type != "Add" and _factor(node) is None:
            return False
    return False


def _readers(value: ir.Value, most: int) -> Iterator[tuple[ir.Node, int]]:
    """The operators in a row behind ``value``, each the only reader of the one before, and at which input."""
    for _ in range(most):
        found = reader_of(value)
        if found is None:
            return
        yield found
        value = found[0].outputs[0]


def _linear_behind(attended: ir.Node, heads: tuple[int, int]) -> Linear | None:
    """The layer that reads what the product ``attended`` makes, all ``heads`` of a token side by side."""
    row = list(_readers(attended.outputs[0], _MOST_BETWEEN))
    if [node.op_type for node, _ in row] != ["Transpose", "Reshape", "MatMul", "Add"] or row[1][1] or row[2][1]:
        return None
    back, merged, _, add = (node for node, _ in row)
    split, whole = sizes_of(back.outputs[0]), sizes_of(merged.outputs[0])
    if perm_of(back) != HEADS or split is None or whole is None or split[2:] != heads or len(whole) != 3:
        return None
    return linear_of(add.outputs[0]) if whole[2] == heads[0] * heads[1] else None


def _can_turn(projection: _Projection) -> bool:
    """Whether what else reads the shape of its result can read that of x."""
    alone = len(projection.result.uses()) == 1
    return alone or sizes_of(projection.linear.x) == sizes_of(projection.result)


def _turn(graph: ir.Graph, x: ir.Value, together: list[_Projection]) -> None:
    """Let all of ``together``, which read ``x``, have their tokens in front of the batch."""
    products = {p.linear.product for p in together}
    first = next(node for node in graph if node in products)
    name = part_of(first.name or "MatMul", "tokens_first")
    turn = ir.node("Transpose", [x], attributes={"perm": [1, 0, 2]}, name=name)
    turned = turn.outputs[0]
    turned.name, turned.type, turned.shape = f"{x.name}_tokens_first", x.type, _swapped(x)
    graph.insert_before(first, turn)
    for projection in together:
        for use in list(projection.result.uses()):
            if use.node is not projection.reshape:
                use.node.replace_input_with(use.idx, x)
        projection.linear.product.replace_input_with(0, turned)
        for node in (*projection.linear.nodes(), projection.reshape):
            node.outputs[0].shape = _swapped(node.outputs[0])
        perm = _TOKENS_FIRST[perm_of(projection.transpose)]
        projection.transpose.attributes["perm"] = ir.AttrInt64s("perm", perm)


def _swapped(value: ir.Value) -> ir.Shape | None:
    """The shape of ``value`` with its first two dimensions exchanged."""
    if value.shape is None:
        return None
    batch, tokens, *rest = value.shape
    return ir.Shape([tokens, batch, *rest])
