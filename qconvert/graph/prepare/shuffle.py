"""A channel shuffle is one Gather of channels.

    x [n, g c, h, w] -> Reshape [n, g, c, h, w] -> Transpose (0, 2, 1, 3, 4) -> Reshape [n, c g, h, w]
    becomes Gather(x, [0, c, 2 c, ..., 1, c + 1, ...], axis 1)

Source of the pattern: Zhang et al. 2017, ShuffleNet, section 3.1. On codes ONNX Runtime (1.32) merges the Transpose
with the change of layout of the integer convolution before it, and moves single bytes: 227 us for 106,624 of them,
where Gather and two changes of layout take 17. In float, Gather takes what the Transpose takes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import add_initializer, perm_of, sizes_of, take_over


def shuffle_to_gather(model: ir.Model) -> None:
    """Rewrite every channel shuffle of known sizes, in place; the Gather keeps the name of the Transpose."""
    graph = model.graph
    for node in list(graph):
        found = _match(node)
        if found is None:
            continue
        source, first, last, order = found
        indices = add_initializer(graph, f"{node.name}_channels", order)
        made = ir.node("Gather", [source, indices], attributes={"axis": 1}, name=node.name)
        graph.insert_before(node, made)
        take_over(made.outputs[0], last.outputs[0])
        graph.remove([last, node, first], safe=True)


def _match(node: ir.Node) -> tuple[ir.Value, ir.Node, ir.Node, NDArray[np.int64]] | None:
    """(what is shuffled, the first Reshape, the last, where each channel comes from) around a Transpose."""
    source = node.inputs[0] if node.inputs else None
    first = source.producer() if source is not None else None
    if node.op_type != "Transpose" or first is None or first.op_type != "Reshape" or source is None:
        return None
    readers = [use.node for use in node.outputs[0].uses()]
    last = readers[0] if len(readers) == 1 else None
    x, alone = first.inputs[0], len(source.uses()) == 1
    between = not (source.is_graph_output() or node.outputs[0].is_graph_output())
    if last is None or last.op_type != "Reshape" or x is None or not alone or not between:
        return None
    shapes = [sizes_of(v) for v in (x, source, node.outputs[0], last.outputs[0])]
    whole, split, _, merged = shapes
    if whole is None or split is None or merged is None or merged != whole or len(split) != len(whole) + 1:
        return None
    groups, each = split[1], split[2]
    if not isinstance(groups, int) or not isinstance(each, int) or not all(isinstance(d, int) for d in whole[1:]):
        return None
    rest = (0, 2, 1, *range(3, len(split)))
    swapped = perm_of(node) == rest
    if not swapped or groups * each != whole[1] or (split[0], *split[3:]) != (whole[0], *whole[2:]):
        return None
    order: NDArray[np.int64] = np.arange(groups * each, dtype=np.int64).reshape(groups, each).T.reshape(-1)
    return x, first, last, order
