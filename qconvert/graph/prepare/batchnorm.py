"""BatchNormalization that onnxscript's rules cannot fold, because no convolution precedes it.

    y[c] = a[c] x[c] + d[c]        a = gamma / sqrt(var + eps),  d = beta - a mean

- directly before an unpadded convolution it goes into that convolution: W' = W a, b' = b + sum W d;
- elsewhere in a convolution net (DenseNet's BatchNormalization - Relu - Conv) it becomes a depthwise 1x1 convolution,
  which runs on integers with the following Relu absorbed, where BatchNormalization itself would be a float island.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import add_initializer, constant_of, is_padded, replace_by

_ON_THE_WAY = ("Relu", "Clip", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "Pad", "Concat", "Add")


def batchnorm_to_conv(model: ir.Model) -> None:
    """Rewrite the remaining BatchNormalization nodes of convolution nets, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
            continue
        x, parameters = node.inputs[0], batchnorm_parameters(node)
        if x is None or x.shape is None or len(x.shape) not in (3, 4, 5) or parameters is None:
            continue
        a, d = parameters
        if _fold_forward(graph, node, a, d):
            continue
        if not _feeds_conv(node.outputs[0]):
            continue
        rank = len(x.shape) - 2
        weight = a.astype(np.float32).reshape(-1, 1, *[1] * rank)
        conv = ir.node(
            "Conv",
            [
                x,
                add_initializer(graph, f"{node.name}_weight", weight),
                add_initializer(graph, f"{node.name}_bias", d.astype(np.float32)),
            ],
            attributes={"group": len(a), "kernel_shape": [1] * rank},
            name=node.name,
        )
        graph.insert_before(node, conv)
        replace_by(conv.outputs[0], node)


def batchnorm_parameters(node: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(a, d), each [C] in float64; None where a parameter is computed or the batch is what is normalised by."""
    if node.attributes.get_int("training_mode", 0) or any(v.uses() for v in node.outputs[1:]):
        return None
    parameters = [constant_of(v) for v in node.inputs[1:5]]
    if any(p is None for p in parameters):
        return None
    gamma, beta, mean, var = (np.asarray(p, np.float64) for p in parameters)
    a = gamma / np.sqrt(var + node.attributes.get_float("epsilon", 1e-5))
    return a, beta - a * mean


def _fold_forward(graph: ir.Graph, node: ir.Node, a: np.ndarray, d: np.ndarray) -> bool:
    out = node.outputs[0]
    uses = list(out.uses())
    if len(uses) != 1 or uses[0].idx != 0 or out.is_graph_output():
        return False
    conv = uses[0].node
    if conv.op_type != "Conv" or conv.graph is not graph or conv.attributes.get_int("group", 1) != 1:
        return False
    w = constant_of(conv.inputs[1])
    bias = constant_of(conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] is not None else None
    if w is None or (len(conv.inputs) > 2 and conv.inputs[2] is not None and bias is None):
        return False
    if is_padded(conv):
        return False  # the padding zeros come after the shift d
    spread = (1, -1, *[1] * (w.ndim - 2))
    weight = (w * a.reshape(spread)).astype(np.float32)
    shift = (w * d.reshape(spread)).sum(axis=tuple(range(1, w.ndim)))
    total = (shift + (0.0 if bias is None else bias)).astype(np.float32)
    new_bias = add_initializer(graph, f"{conv.name}_bias", total)
    conv.replace_input_with(0, node.inputs[0])
    conv.replace_input_with(1, add_initializer(graph, f"{conv.name}_weight", weight))
    if len(conv.inputs) < 3:
        conv.resize_inputs(3)
    conv.replace_input_with(2, new_bias)
    graph.remove(node, safe=True)
    return True


def _feeds_conv(value: ir.Value, depth: int = 4) -> bool:
    for use in value.uses():
        if use.node.op_type == "Conv" and use.idx == 0:
            return True
        if depth and use.node.op_type in _ON_THE_WAY and any(_feeds_conv(v, depth - 1) for v in use.node.outputs):
            return True
    return False
