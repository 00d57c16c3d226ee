"""Shapes that need not be computed.

A dimension that is known is a constant, and so is what is computed from it:

    Gather(Shape(x [b, 3, 224, 224]), 2)  ->  224

A Reshape whose result has dimensions of its input in their places gets a constant shape:

    Reshape(x [b, t, 384], Concat(Gather(Shape(x), 0), Gather(Shape(x), 1), 12, 32))  ->  Reshape(x, [0, 0, 12, 32])

Exporters compute such shapes from the tensors around, four operators for each dimension, and every one of them takes
2 us as the model runs (ONNX Runtime 1.32), as much as a small product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import add_initializer, constant_of, remove_unused, sizes_of


def constant_dimensions(model: ir.Model) -> None:
    """Make constant what is picked from the shape of a tensor and is known, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Gather" or node.domain not in ("", "ai.onnx") or node.attributes.get_int("axis", 0) != 0:
            continue
        shape, indices = node.inputs[0], constant_of(node.inputs[1])
        maker = shape.producer() if shape is not None else None
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


def constant_shapes(model: ir.Model) -> None:
    """Make constant whatever shape of a Reshape is known but for dimensions that stay, in place."""
    found = False
    for node in list(model.graph):
        if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
            continue
        x, computed = node.inputs
        if x is None or computed is None or constant_of(computed) is not None:
            continue
        shape = _as_constant(sizes_of(x), sizes_of(node.outputs[0]))
        if shape is not None:
            node.attributes.pop("allowzero", None)
            node.replace_input_with(1, add_initializer(model.graph, f"{node.name}_shape", np.array(shape, np.int64)))
            found = True
    if found:
        remove_unused(model)  # what computed them reads what other passes want to find with one reader


def _as_constant(before: tuple[object, ...] | None, after: tuple[object, ...] | None) -> list[int] | None:
    """The shape that makes ``after`` of ``before``: 0 where a dimension stays, -1 for one that is left open."""
    if before is None or after is None or 0 in before or 0 in after:
        return None
    shape = [
        size if isinstance(size, int) else 0 if axis < len(before) and before[axis] == size else -1
        for axis, size in enumerate(after)
    ]
    return shape if shape.count(-1) <= 1 else None
