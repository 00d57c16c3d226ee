"""Queries, keys and values that one product makes come from a product each.

    x -> MatMul [C, 3 h d] -> Reshape [b, t, 3, h, d] -> Transpose (2, 0, 3, 1, 4) -> one Gather each [b, h, t, d]
    x -> MatMul [C, h d] -> Reshape [b, t, h, d] -> Transpose (0, 2, 1, 3)                      three times

The columns are the same and so are the multiplications, but nothing is copied to be taken apart, and what else
attention can do without is found in this form only (:mod:`qconvert.graph.prepare.attention`). Vision transformers of
timm and PaddleOCR are written the first way.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qconvert.graph.edit import (
    add_initializer,
    constant_of,
    part_of,
    perm_of,
    reader_of,
    sizes_of,
    sole_maker,
    take_over,
)
from qconvert.graph.prepare.attention import HEADS
from qconvert.graph.prepare.linear import Linear, linear_of

_APART = (2, 0, 3, 1, 4)


def separate_projections(model: ir.Model) -> None:
    """Rewrite every product whose columns are taken apart right behind it, in place; results keep their names."""
    for node in list(model.graph):
        if node.graph is model.graph and node.op_type == "Transpose" and perm_of(node) == _APART:
            _separate(model.graph, node)


def _separate(graph: ir.Graph, transpose: ir.Node) -> None:
    reshape = sole_maker(transpose.inputs[0])
    if reshape is None or reshape.op_type != "Reshape" or transpose.outputs[0].is_graph_output():
        return
    linear, split = linear_of(reshape.inputs[0]), sizes_of(reshape.outputs[0])
    whole = sizes_of(reshape.inputs[0]) if reshape.inputs[0] is not None else None
    if linear is None or whole is None or split is None or len(whole) != 3 or whole[:2] != split[:2]:
        return
    sizes = [size for size in split[2:] if isinstance(size, int)]
    if len(sizes) != 3 or np.prod(sizes) != linear.weight.shape[1]:
        return
    # what a control-flow body picks may be what it returns, which nothing outside can make
    found = [_picked(use.node, use.idx) if use.node.graph is graph else [] for use in transpose.outputs[0].uses()]
    picked = [pick for picks in found for pick in picks]
    if all(found) and all(0 <= index < sizes[0] for index, _ in picked):
        for index, value in picked:
            _project(graph, linear, reshape, transpose, (index, sizes[1], sizes[2]), value)


def _picked(node: ir.Node, port: int) -> list[tuple[int, ir.Value]]:
    """(which of the first dimension, what comes of it) of all that is read there; none where it is read otherwise."""
    if node.op_type == "Gather" and port == 0 and node.attributes.get_int("axis", 0) == 0:
        index = constant_of(node.inputs[1])
        return [(int(index), node.outputs[0])] if index is not None and index.ndim == 0 else []
    if node.op_type == "Slice" and port == 0 and len(node.inputs) == 4:
        ends = [constant_of(v) for v in node.inputs[1:]]
        if any(end is None or end.shape != (1,) for end in ends):
            return []
        start, end, axis = (int(end[0]) for end in ends if end is not None)
        value = _squeezed(node.outputs[0]) if axis == 0 and end == start + 1 else None
        return [] if value is None else [(start, value)]
    if node.op_type == "Split" and port == 0 and node.attributes.get_int("axis", 0) == 0:
        values = [_squeezed(output) for output in node.outputs]
        sizes = [sizes_of(output) for output in node.outputs]
        if all(size is not None and size[0] == 1 for size in sizes):
            found = [(i, v) for i, v in enumerate(values) if v is not None]
            return found if len(found) == len(values) else []
    return []


def _squeezed(value: ir.Value) -> ir.Value | None:
    """``value`` without its first dimension, where that is all that anything reads of it."""
    reader = reader_of(value)
    axes = constant_of(reader[0].inputs[1]) if reader is not None and len(reader[0].inputs) == 2 else None
    if reader is None or reader[0].op_type != "Squeeze" or axes is None or axes.tolist() != [0]:
        return None
    return reader[0].outputs[0]


def _project(
    graph: ir.Graph, linear: Linear, reshape: ir.Node, transpose: ir.Node, part: tuple[int, int, int], old: ir.Value
) -> None:
    """Let a product of its own make ``old``: of ``part``, (which one, heads, channels of each)."""
    index, heads, each = part
    columns = slice(index * heads * each, (index + 1) * heads * each)
    nodes: list[ir.Node] = []
    for node in (*linear.nodes(), reshape, transpose):
        before = nodes[-1].outputs[0] if nodes else linear.x
        name, operands, attributes = part_of(node.name or node.op_type, str(index)), [before], {}
        if node is linear.product:
            own = np.ascontiguousarray(linear.weight[:, columns])
            operands.append(add_initializer(graph, f"{name}_weight", own))
        elif linear.bias is not None and node is linear.bias.add:
            own = np.asarray(linear.bias.values[columns], np.float32)
            operands.append(add_initializer(graph, f"{name}_bias", own))
        elif node is reshape:
            operands.append(add_initializer(graph, f"{name}_shape", np.array([0, 0, heads, each], np.int64)))
        else:
            attributes = {"perm": list(HEADS)}
        made = ir.node(node.op_type, operands, attributes=attributes, name=name)
        batch_and_tokens = (linear.product.outputs[0].shape or ())[:2]
        last = [heads, each] if node is reshape else [heads * each]
        made.outputs[0].name, made.outputs[0].type = f"{name}_result", old.type
        made.outputs[0].shape = ir.Shape([*batch_and_tokens, *last])
        nodes.append(made)
    graph.insert_before(transpose, nodes)
    take_over(nodes[-1].outputs[0], old)
