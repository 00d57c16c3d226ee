"""Layers and links: the weighted operators of a graph, and which of them hand their channels to which.

A :class:`Layer` is a Conv, Gemm or MatMul with a constant weight. Its weight as seen by channels:

    Conv    W [O, I/g, k, k]   output channel o = axis 0; input channel c = (group, axis 1), of O/g outputs each
    Gemm    W [K, N]           output channel = axis 1, input channel = axis 0; the reverse with transB
    MatMul  W [K, N]           output channel = axis 1, input channel = axis 0; its bias is a constant Add behind it
    ConvTranspose  W [I, O/g, k, k]    input channel = axis 0; output channel = (group, axis 1), for those who ask

A :class:`Link` is a chain of single readers from one layer to the next, through operators f of which
f(a x) = a f(x) holds for each channel and every a > 0. Flatten makes ``blocks`` inputs of each channel. A Clip from 0
to a ceiling is no such operator, but for channels that never come to the ceiling: links go through it, and name it.
PRelu is one, whole and taken apart (graph/prepare/prelu.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.constants import BIAS_PORT, Port
from qconvert.graph.view import GraphView, NodeView

Array = NDArray[np.float32]
_Element = TypeVar("_Element", bound=np.generic)

_SPATIAL = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_ANYWHERE = ("Relu", "LeakyRelu", "PRelu", "Identity", "Dropout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A weighted operator.

    Attributes:
        node: its name.
        op_type: Conv, Gemm, MatMul or ConvTranspose.
        source: the tensor that it reads.
        result: the tensor that it makes, with the bias added.
        out_axis: the output channels' axis of the weight.
        group: groups of a Conv or ConvTranspose, 1 for the others.
        bias: where its bias is read: a port of its own, perhaps not connected yet, or one of the Add behind a MatMul;
            None where there is no place for one.
        has_bias: whether that port is connected.
    """

    node: str
    op_type: str
    source: str
    result: str
    out_axis: int
    group: int
    bias: Port | None
    has_bias: bool

    @property
    def weight(self) -> Port:
        """Where its weight is read."""
        return (self.node, 1)

    @property
    def bias_port(self) -> Port:
        """Where its bias is read, or will be once it has one."""
        return self.bias or (self.node, BIAS_PORT)

    def over_outputs(self, values: NDArray[np.floating], weight: Array) -> NDArray[np.floating]:
        """``values`` [O] shaped so that they broadcast along the output channels of ``weight``."""
        return values.reshape([-1 if i == self.out_axis else 1 for i in range(weight.ndim)])

    def scaled_inputs(self, weight: Array, factors: NDArray[np.floating]) -> Array:
        """``weight`` times ``factors`` [inputs] along its input channels."""
        if self.op_type != "Conv":
            return np.asarray(weight * factors.reshape((-1, 1) if self.out_axis == 1 else (1, -1)), np.float32)
        grouped = self._grouped(weight)
        by_group = factors.reshape(self.group, 1, -1, *[1] * (weight.ndim - 2))
        return np.asarray((grouped * by_group).reshape(weight.shape), np.float32)

    def by_inputs(self, weight: Array) -> Array:
        """``weight`` as [inputs, outputs a group, taps]."""
        if self.op_type == "ConvTranspose":
            return weight.reshape(*weight.shape[:2], -1)
        if self.op_type != "Conv":
            return (weight if self.out_axis == 1 else weight.T)[:, :, None]
        grouped = self._grouped(weight).swapaxes(1, 2)
        return grouped.reshape(self.group * weight.shape[1], weight.shape[0] // self.group, -1)

    def by_outputs(self, weight: NDArray[_Element]) -> NDArray[_Element]:
        """``weight`` as [groups, outputs a group, inputs a group * taps]."""
        if self.op_type != "Conv":
            return (weight.T if self.out_axis == 1 else weight)[None]
        return weight.reshape(self.group, weight.shape[0] // self.group, -1)

    def from_outputs(self, rows: NDArray[np.floating], like: Array) -> Array:
        """The reverse of :meth:`by_outputs`; ``like`` gives the shape."""
        if self.op_type != "Conv":
            return np.asarray(rows[0].T if self.out_axis == 1 else rows[0], np.float32)
        return np.asarray(rows.reshape(like.shape), np.float32)

    def outputs(self, weight: Array) -> int:
        """How many output channels it has."""
        return int(weight.shape[self.out_axis] * (self.group if self.op_type == "ConvTranspose" else 1))

    def inputs(self, weight: Array) -> int:
        """How many input channels it has."""
        return int(weight.shape[1] * self.group if self.op_type == "Conv" else weight.shape[1 - self.out_axis])

    def _grouped(self, weight: Array) -> Array:
        return weight.reshape(self.group, weight.shape[0] // self.group, *weight.shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """``first`` hands its channels to ``second`` alone; ``second`` has ``blocks`` inputs for each of them.

    Attributes:
        first, second, blocks: as above.
        tensors: the way, from the result of ``first`` to what ``second`` reads.
        ceilings: (what is clipped, at which value) on the way.
    """

    first: str
    second: str
    blocks: int
    tensors: tuple[str, ...]
    ceilings: tuple[tuple[str, float], ...] = ()


def find_layers(graph: GraphView, *, transposed: bool = False) -> dict[str, Layer]:
    """Every Conv, Gemm and MatMul with a float32 constant weight, in graph order; with ``transposed`` every
    ConvTranspose, too. Of these :meth:`Layer.outputs` and :meth:`Layer.by_inputs` are what there is."""
    wanted = ("Conv", "Gemm", "MatMul", "ConvTranspose") if transposed else ("Conv", "Gemm", "MatMul")
    found = (_layer(graph, node) for node in graph.nodes.values() if node.op_type in wanted)
    return {layer.node: layer for layer in found if layer is not None}


def _layer(graph: GraphView, node: NodeView) -> Layer | None:
    weight = node.input(1)
    if node.domain not in ("", "ai.onnx"):
        return None
    if not graph.is_constant(weight) or graph.is_constant(node.input(0)) or not graph.tensors[weight or ""].is_float:
        return None
    shape = graph.tensors[weight or ""].shape or ()
    rank = len(shape)
    if 0 in shape:
        return None
    result, axis, group = node.outputs[0], 1, 1
    bias: Port | None = (node.name, 2)
    has_bias = node.input(2) is not None
    if node.op_type in ("Conv", "ConvTranspose"):
        axis, group = int(node.op_type == "ConvTranspose"), node.attr_int("group", 1)
    elif node.op_type == "Gemm":
        if node.attr_int("transA", 0) or node.attr_float("alpha", 1.0) != 1.0 or node.attr_float("beta", 1.0) != 1.0:
            return None
        axis = 0 if node.attr_int("transB", 0) else 1
    else:
        if rank != 2:
            return None
        bias, result = _added(graph, node)
        has_bias = bias is not None
    if node.op_type != "MatMul" and has_bias:
        tensor = graph.tensors.get(node.input(2) or "")
        if tensor is None or not tensor.is_constant or tensor.rank != 1:
            return None
    return Layer(
        node=node.name,
        op_type=node.op_type,
        source=node.inputs[0] or "",
        result=result,
        out_axis=axis,
        group=group,
        bias=bias,
        has_bias=has_bias,
    )


def _added(graph: GraphView, product: NodeView) -> tuple[Port | None, str]:
    """(port of the constant [N] that the only reader of ``product`` adds to it, that reader's result)."""
    out = product.outputs[0]
    columns = (graph.tensors[product.inputs[1] or ""].shape or (None,))[-1]
    if only_reader(graph, out) is None:
        return None, out
    add, port = graph.consumers(out)[0]
    other = add.input(1 - port)
    if add.op_type != "Add" or other is None or not graph.is_constant(other):
        return None, out
    shape = graph.tensors[other].shape or ()
    if not shape or shape[-1] != columns or any(d != 1 for d in shape[:-1]) or len(shape) > 3:
        return None, out
    return (add.name, 1 - port), add.outputs[0]


def only_reader(graph: GraphView, tensor: str) -> tuple[NodeView, int] | None:
    """The one node that reads ``tensor``, and its port; None when there are others, or the model's user is one."""
    view = graph.tensors[tensor]
    if view.is_output or view.captured or view.is_input or len(view.consumers) != 1:
        return None
    return graph.consumers(tensor)[0]


def find_links(graph: GraphView, layers: Mapping[str, Layer]) -> list[Link]:
    """Every link between two layers, in graph order."""
    found = (_link(graph, layers, layer) for layer in layers.values())
    return [link for link in found if link is not None]


def _link(graph: GraphView, layers: Mapping[str, Layer], first: Layer) -> Link | None:
    if not owns_weight(graph, first):
        return None
    tensor, blocks = first.result, 1
    ceilings: list[tuple[str, float]] = []
    rank = graph.tensors[tensor].rank
    axis = 1 if first.op_type in ("Conv", "Gemm") else (rank or 0) - 1
    path = [tensor]
    while (reader := only_reader(graph, tensor) or _rectifier(graph, tensor)) is not None:
        node, port = reader
        if node.name in layers:
            second = layers[node.name]
            wanted = 1 if second.op_type in ("Conv", "Gemm") else (graph.tensors[tensor].rank or 0) - 1
            if port != 0 or axis != wanted or axis < 0 or not owns_weight(graph, second):
                return None
            if second.inputs(_weight(graph, second)) != blocks * _weight(graph, first).shape[first.out_axis]:
                return None
            return Link(
                first=first.node, second=second.node, blocks=blocks, tensors=tuple(path), ceilings=tuple(ceilings)
            )
        factor = _through(graph, node, port, axis)
        if factor is None:
            return None
        if node.op_type == "Clip" and np.isfinite(ceiling := _ceiling(graph, node)):
            ceilings.append((tensor, ceiling))
        blocks *= factor
        tensor = node.outputs[0]
        path.append(tensor)
    return None


def _rectifier(graph: GraphView, tensor: str) -> tuple[NodeView, int] | None:
    """The Max of ``tensor`` and ``tensor`` times a slope a channel, which alone read it, and its port."""
    view, readers = graph.tensors[tensor], graph.consumers(tensor)
    if view.is_output or view.captured or len(readers) != 2:
        return None
    (product, at), (most, port) = sorted(readers, key=lambda reader: reader[0].op_type)
    if (product.op_type, most.op_type, at) != ("Conv", "Max", 0) or not graph.is_constant(product.input(1)):
        return None
    shape = graph.tensors[product.input(1) or ""].shape or (0,)
    slopes = shape[0] == product.attr_int("group", 1) and all(d == 1 for d in shape[1:]) and product.input(2) is None
    alone = only_reader(graph, product.outputs[0])
    return (most, port) if slopes and alone is not None and alone[0].name == most.name else None


def _weight(graph: GraphView, layer: Layer) -> Array:
    return np.asarray(graph.constant(graph.nodes[layer.node].inputs[1] or ""), np.float32)


def owns_weight(graph: GraphView, layer: Layer) -> bool:
    """Whether nothing else reads the layer's weight; otherwise two values of it would have to be stored."""
    view = graph.tensors[graph.nodes[layer.node].inputs[1] or ""]
    return view.producer is None and len(view.consumers) == 1 and not view.captured and not view.is_output


def _through(graph: GraphView, node: NodeView, port: int, axis: int) -> int | None:
    """How many values each channel becomes in ``node``; None where a scale does not pass through unchanged."""
    if port != 0 or node.domain not in ("", "ai.onnx") or any(node.outputs[1:]):
        return None
    if node.op_type in _ANYWHERE or (node.op_type == "Max" and len(graph.consumers(node.inputs[port] or "")) == 2):
        return 1
    if node.op_type == "Clip":
        return 1 if _ceiling(graph, node) > 0 else None
    if node.op_type in _SPATIAL:
        return 1 if axis == 1 else None
    if node.op_type == "Pad":
        return 1 if _pads_each_channel(graph, node, axis) else None
    if node.op_type in ("Flatten", "Reshape"):
        return _flattened(graph, node, axis)
    return None


def clip_range(graph: GraphView, node: NodeView) -> tuple[float, float] | None:
    """(low, high) of a Clip, infinite where it has none; None where they are computed, or not one for all channels."""
    ends: list[float] = []
    for port, attribute, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        tensor = node.input(port)
        if tensor is None:
            ends.append(node.attr_float(attribute, default))
            continue
        if not graph.is_constant(tensor) or graph.constant(tensor).size != 1:
            return None
        ends.append(float(np.asarray(graph.constant(tensor), np.float64).reshape(())))
    return ends[0], ends[1]


def _ceiling(graph: GraphView, node: NodeView) -> float:
    """Where a Clip ends that begins at 0, or does nothing at all; 0 for any other."""
    low, high = clip_range(graph, node) or (1.0, 0.0)
    return high if low == 0 or (low == -np.inf and high == np.inf) else 0.0


def _pads_each_channel(graph: GraphView, node: NodeView, axis: int) -> bool:
    pads, value, rank = node.input(1), node.input(2), graph.tensors[node.inputs[0] or ""].rank
    if rank is None or node.input(3) is not None or not graph.is_constant(pads):
        return False
    widths = graph.constant(pads or "")
    if widths.size != 2 * rank or widths[axis] != 0 or widths[axis + rank] != 0:
        return False
    if node.attr_str("mode", "constant") != "constant" or value is None:
        return True  # a mirrored or repeated value is scaled like its original
    return graph.is_constant(value) and not np.any(graph.constant(value))


def _flattened(graph: GraphView, node: NodeView, axis: int) -> int | None:
    """[N, C, d, ...] -> [N, C d ...]: each channel becomes d ... neighbours."""
    before, after = graph.tensors[node.inputs[0] or ""].shape, graph.tensors[node.outputs[0]].shape
    if before is None or after is None or len(after) != 2 or axis != 1 or len(before) < 2:
        return None
    sizes = [d for d in before[1:] if isinstance(d, int)]
    if len(sizes) != len(before) - 1 or after[1] != int(np.prod(sizes)):
        return None
    return int(np.prod(sizes[1:]))
