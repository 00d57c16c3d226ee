"""A Reshape whose result has dimensions of its input in their places gets a constant shape.

    Reshape(x [b, t, 384], Concat(Gather(Shape(x), 0), Gather(Shape(x), 1), 12, 32))  ->  Reshape(x, [0, 0, 12, 32])

Exporters compute such shapes from the tensors around, four operators for each dimension, and every one of them takes
2 us as the model runs (ONNX Runtime 1.32), as much as a small product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qconvert.graph.edit import add_initializer, constant_of, remove_unused, sizes_of


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
