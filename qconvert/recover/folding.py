"""Where a factor for each channel of a tensor can go without a node of its own: constants of what makes the tensor.

LayerNormalization, RMSNormalization    gamma and beta, [C]
Mul by a constant [C]                   the constant; so a normalization that is written out ends
Add of a constant [C]                   the constant, and those of what makes the other operand
Gemm, MatMul                            the columns of the weight, and the bias
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qconvert.graph.constants import Port
from qconvert.graph.view import GraphView, NodeView
from qconvert.recover.layers import Layer, only_reader, owns_weight

_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Constants that scale the channels of a tensor when they are scaled along an axis.

    Attributes:
        axes: port -> the axis of its constant.
        normalizes: whether they belong to a normalization or a product, not to a weight.
    """

    axes: Mapping[Port, int]
    normalizes: bool


def find_place(graph: GraphView, layers: Mapping[str, Layer], tensor: str, channels: int) -> Place | None:
    """Where factors for the last axis of ``tensor``, [channels], can go; None where they cannot."""
    node = graph.producer(tensor)
    if node is None or node.domain not in ("", "ai.onnx") or any(graph.tensors[t].consumers for t in node.outputs[1:]):
        return None
    layer = next((x for x in layers.values() if x.result == tensor and x.op_type in ("Gemm", "MatMul")), None)
    if layer is not None:
        return _in_layer(graph, layer)
    if node.op_type in _NORMALIZATIONS:
        ports = [(node.name, i) for i in (1, 2) if node.input(i) is not None]
        last = node.attr_int("axis", -1) in (-1, (graph.tensors[tensor].rank or 0) - 1)
        whole = last and all(_is_vector(graph, node.inputs[i], channels) for _, i in ports)
        return Place(axes=dict.fromkeys(ports, -1), normalizes=True) if whole and ports else None
    if node.op_type not in ("Mul", "Add"):
        return None
    port = next((i for i in (1, 0) if _is_vector(graph, node.inputs[i], channels)), None)
    if port is None:
        return None
    if node.op_type == "Mul":
        return Place(axes={(node.name, port): -1}, normalizes=True)
    behind = _behind(graph, layers, node, 1 - port, channels)
    if behind is None:
        return None
    return Place(axes={**behind.axes, (node.name, port): -1}, normalizes=behind.normalizes)


def _behind(graph: GraphView, layers: Mapping[str, Layer], add: NodeView, port: int, channels: int) -> Place | None:
    """The place for the other operand of ``add``, which nothing else may read."""
    other = add.inputs[port]
    if other is None or graph.producer(other) is None or only_reader(graph, other) is None:
        return None
    return find_place(graph, layers, other, channels)


def _in_layer(graph: GraphView, layer: Layer) -> Place | None:
    if not owns_weight(graph, layer):
        return None
    axes = {layer.weight: layer.out_axis}
    if layer.has_bias and layer.bias is not None:
        axes[layer.bias] = -1
    return Place(axes=axes, normalizes=False)


def _is_vector(graph: GraphView, tensor: str | None, channels: int) -> bool:
    """Whether ``tensor`` is a float constant [..., 1, channels]."""
    if tensor is None or not graph.is_constant(tensor) or not graph.tensors[tensor].is_float:
        return False
    shape = graph.tensors[tensor].shape or ()
    return bool(shape) and shape[-1] == channels and all(d == 1 for d in shape[:-1])
