"""Means over the whole spatial extent, in the one form that has a fast integer kernel.

    AveragePool with the kernel of the input's size, unpadded      ->  GlobalAveragePool
    ReduceMean over all spatial axes of [N, C, ...]                ->  GlobalAveragePool (+ Flatten without keepdims)

On integers ONNX Runtime's QLinearAveragePool takes 8 to 12 times as long as its float kernel and ReduceMean has no
integer kernel, while QLinearGlobalAveragePool takes a quarter of the float time.
"""

from __future__ import annotations

import onnx_ir as ir

from qconvert.graph.edit import constant_of, is_padded, replace_by


def global_pooling(model: ir.Model) -> None:
    """Rewrite pooling and means that cover the whole spatial extent, in place."""
    graph = model.graph
    for node in list(graph):
        if node.domain not in ("", "ai.onnx") or node.inputs[:1] in ((), (None,)):
            continue
        if node.op_type == "AveragePool" and _covers_everything(node):
            _replace(graph, node, flatten=False)
        elif node.op_type == "ReduceMean" and _reduces_space(node):
            _replace(graph, node, flatten=not node.attributes.get_int("keepdims", 1))


def _covers_everything(node: ir.Node) -> bool:
    x = node.inputs[0]
    kernel = node.attributes.get_ints("kernel_shape", [])
    if x is None or x.shape is None or len(x.shape) < 3 or tuple(x.shape[2:]) != tuple(kernel):
        return False
    if any(d != 1 for d in node.attributes.get_ints("dilations", [])):
        return False
    return not is_padded(node)


def _reduces_space(node: ir.Node) -> bool:
    x = node.inputs[0]
    if x is None or x.shape is None or len(x.shape) < 4 or x.dtype != ir.DataType.FLOAT:
        return False
    axes = node.attributes.get_ints("axes", [])
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = constant_of(node.inputs[1])
        axes = [] if constant is None else [int(a) for a in constant.reshape(-1)]
    rank = len(x.shape)
    return sorted(a % rank for a in axes) == list(range(2, rank))


def _replace(graph: ir.Graph, node: ir.Node, *, flatten: bool) -> None:
    x = node.inputs[0]
    pool = ir.node("GlobalAveragePool", [x], name=node.name)
    pool.outputs[0].type = node.outputs[0].type
    new = [pool]
    if flatten:
        new.append(ir.node("Flatten", [pool.outputs[0]], attributes={"axis": 1}, name=f"{node.name}_flatten"))
        pool.outputs[0].name = f"{node.outputs[0].name}_pooled"
        if x is not None and x.shape is not None:
            pool.outputs[0].shape = ir.Shape([*x.shape[:2], *[1] * (len(x.shape) - 2)])
    graph.insert_before(node, new)
    replace_by(new[-1].outputs[0], node)
