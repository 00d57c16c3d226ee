"""Shapes that need not be computed.

A dimension that is known is a constant, and so is what is computed from it:

    Gather(Shape(x [b, 3, 224, 224]), 2)  ->  224

A Reshape whose result has dimensions of its input in their places gets a constant shape, and so does an Expand:

    Reshape(x [b, t, 384], Concat(Gather(Shape(x), 0), Gather(Shape(x), 1), 12, 32))  ->  Reshape(x, [0, 0, 12, 32])

A Slice of everything goes.

PyTorch's expand replaces -1 in front of it, of which a shape has none: Where(Equal(shape, -1), 1, shape) is the shape.

Exporters compute such shapes from the tensors around, four operators for each dimension, and every one of them takes
2 us as the model runs (ONNX Runtime 1.32), as much as a small product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import add_initializer, constant_of, maker_of, remove_unused, sizes_of


def constant_dimensions(model: ir.Model) -> None:
    """Make constant what is picked from the shape of a tensor and is known, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Gather" or node.domain not in ("", "ai.onnx") or node.attributes.get_int("axis", 0) != 0:
            continue
        maker, indices = maker_of(node.inputs[0]), constant_of(node.inputs[1])
        if maker is None or maker.op_type != "Shape" or indices is None or maker.inputs[0] is None:
            continue
        sizes = sizes_of(maker.inputs[0])
        picked = None if sizes is None else _picked(_from_to(maker, sizes), np.asarray(indices, np.int64))
        if picked is not None and not node.outputs[0].is_graph_output():
            name = node.outputs[0].name or f"{node.name}_size"
            ir.convenience.replace_all_uses_with(node.outputs[0], add_initializer(graph, f"{name}_known", picked))
            graph.remove(node, safe=True)


def _from_to(shape: ir.Node, sizes: tuple[object, ...]) -> tuple[object, ...]:
    """What the Shape ``shape`` of a tensor of ``sizes`` gives."""
    return sizes[slice(shape.attributes.get_int("start", 0), shape.attributes.get_int("end", len(sizes)))]


def _picked(sizes: tuple[object, ...], indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """``sizes`` at ``indices``; None where one of them is not known."""
    if indices.size == 0 or np.any((indices < -len(sizes)) | (indices >= len(sizes))):
        return None
    found = [size for i in indices.reshape(-1) if isinstance(size := sizes[int(i)], int)]
    return np.array(found, np.int64).reshape(indices.shape) if len(found) == indices.size else None


def plain_expands(model: ir.Model) -> None:
    """Let Expand read shapes as they are where -1 is replaced that no shape holds, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Where" or node.domain not in ("", "ai.onnx"):
            continue
        equal, ones, shape = maker_of(node.inputs[0]), constant_of(node.inputs[1]), node.inputs[2]
        if equal is None or equal.op_type != "Equal" or ones is None or shape is None or shape not in equal.inputs:
            continue
        marks = constant_of(equal.inputs[1 - equal.inputs.index(shape)])
        if marks is None or not (marks == -1).all() or node.outputs[0].is_graph_output() or not _is_shape(shape):
            continue
        for use in node.outputs[0].uses():
            if use.node.op_type == "Expand":
                use.node.outputs[0].shape = None  # it can be known now
        ir.convenience.replace_all_uses_with(node.outputs[0], _flat(shape))
        graph.remove(node, safe=True)


def _flat(shape: ir.Value) -> ir.Value:
    """``shape`` before a Reshape that changes nothing, and that inference does not see through."""
    node = maker_of(shape)
    x = node.inputs[0] if node is not None and node.op_type == "Reshape" else None
    return x if x is not None and x.shape is not None and len(x.shape) == 1 else shape


def _is_shape(value: ir.Value | None, depth: int = 8) -> bool:
    """Whether nothing in ``value`` is negative: it is made of dimensions and of constants."""
    constant, node = constant_of(value), maker_of(value)
    if constant is not None:
        return bool((np.asarray(constant, np.float64) >= 0).all())
    if node is None or depth == 0 or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Concat":
        return all(_is_shape(v, depth - 1) for v in node.inputs)
    return node.op_type == "Shape" or (node.op_type in _PICKING and _is_shape(node.inputs[0], depth - 1))


def without_whole_slices(model: ir.Model) -> None:
    """Leave out what cuts nothing off, in place: exporters write x[:, :, :, 0:1] where there is one element anyway."""
    graph = model.graph
    for node in list(graph):
        if node.op_type == "Slice" and node.domain in ("", "ai.onnx") and len(node.inputs) >= 3 and _is_whole(node):
            out, x = node.outputs[0], node.inputs[0]
            if x is not None and not out.is_graph_output():
                ir.convenience.replace_all_uses_with(out, x)
                graph.remove(node, safe=True)


def _is_whole(node: ir.Node) -> bool:
    """Whether a Slice takes everything: from 0 on, one by one, to the end of each dimension or beyond it."""
    x, *others = node.inputs
    constants = [None if v is None else constant_of(v) for v in others]
    if x is None or x.shape is None or any(c is None and v is not None for c, v in zip(constants, others, strict=True)):
        return False
    starts, ends, axes, steps = (
        None if c is None else [int(n) for n in c.reshape(-1)] for c in (*constants, None, None)[:4]
    )
    if starts is None or ends is None or any(starts) or any(step != 1 for step in steps or ()):
        return False
    sizes = [x.shape[axis] for axis in axes or range(len(ends))]
    return all(n >= (size if isinstance(size, int) else _ENDLESS) for n, size in zip(ends, sizes, strict=True))


def constant_shapes(model: ir.Model) -> None:
    """Make constant whatever shape of a Reshape or Expand is known but for dimensions that stay, in place."""
    given = {size for value in model.graph.inputs for size in sizes_of(value) or ()}
    finds = any(node.op_type in _FINDING for node in model.graph.all_nodes())
    found = False
    for node in list(model.graph):
        if node.op_type not in _SHAPED or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
            continue
        x, computed = node.inputs
        if x is None or computed is None or constant_of(computed) is not None:
            continue
        before = sizes_of(x) or ()
        shape = _SHAPED[node.op_type](before, sizes_of(node.outputs[0])) if before else None
        copied = [before[i] for i, n in enumerate(shape or ()) if n == 0]
        # there may be none of what is found as the model runs, boxes say: then -1 would not be known
        if shape is not None and (-1 not in shape or not finds or given.issuperset(copied)):
            node.attributes.pop("allowzero", None)
            node.replace_input_with(1, add_initializer(model.graph, f"{node.name}_shape", np.array(shape, np.int64)))
            found = True
    if found:
        remove_unused(model)  # what computed them reads what other passes want to find with one reader


def _reshaped(before: tuple[object, ...], after: tuple[object, ...] | None) -> list[int] | None:
    """What Reshape makes ``after`` of ``before`` by: 0 where a dimension stays, -1 for one that is left open."""
    if after is None or 0 in before or 0 in after:
        return None
    shape = [
        size if isinstance(size, int) else 0 if axis < len(before) and before[axis] == size else -1
        for axis, size in enumerate(after)
    ]
    return shape if shape.count(-1) <= 1 else None


def _expanded(before: tuple[object, ...], after: tuple[object, ...] | None) -> list[int] | None:
    """What Expand makes ``after`` of ``before`` by: 1 where a dimension stays."""
    if after is None or len(before) != len(after):
        return None
    shape = [1 if b == a else a for b, a in zip(before, after, strict=True)]
    return [size for size in shape if isinstance(size, int)] if all(isinstance(size, int) for size in shape) else None


_SHAPED = {"Reshape": _reshaped, "Expand": _expanded}
# Operators whose results have as many rows as there is something to be found, or bodies say.
_FINDING = ("NonZero", "NonMaxSuppression", "Compress", "Unique", "Loop", "Scan", "If", "SequenceAt")
# What exporters write for the end of a dimension, whatever it is; no tensor has that many elements along one.
_ENDLESS = 10**9
# Operators that change where dimensions stand, and not what they are.
_PICKING = ("Gather", "Slice", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Cast")
