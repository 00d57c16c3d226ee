"""A transposed convolution whose kernel is a multiple of its stride is a convolution and DepthToSpace.

With stride s, T s taps, and p elements cut off in front, output n of y = ConvTranspose(x, w) is, with m = n + p,

    y[n] = sum over t < T of x[m // s - t] w[s t + m % s]

so a convolution of T taps makes all s x s phases m % s of a pixel, as channels, and DepthToSpace puts them side by
side; what is cut off is cut off behind it. Nothing is multiplied by zeros. Source: Shi et al. 2016 (arXiv:1609.07009),
Is the deconvolution layer the same as a convolutional layer?

ONNX Runtime (1.32) has no integer kernel for ConvTranspose. 384 to 256 channels of 37 x 37 with 4 x 4 taps and stride 2
take 21.0 ms so, 19.4 ms as a convolution in float, 6.0 ms on integers; 32 to 16 channels of 64 x 64 take .64, .63 and
.34 ms. Where the kernel is the stride, T = 1, ConvTranspose is the fastest of them, and stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qconvert.graph.edit import add_initializer, constant_of, part_of, reader_of, take_over

# Activations that may as well come before DepthToSpace, where a convolution takes them in.
_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Phases:
    """The convolution for one ConvTranspose.

    Attributes:
        stride: s.
        taps: T.
        pads: of the convolution: rows and columns in front, then behind.
        cut: what is cut off of its pixels: rows and columns in front, then behind.
    """

    stride: int
    taps: int
    pads: tuple[int, ...]
    cut: tuple[int, ...]


def deconvolution_to_convolution(model: ir.Model) -> list[str]:
    """Rewrite every ConvTranspose that fits, in place; the convolution keeps its name.

    Returns:
        What to tell of it; nothing where there is none.
    """
    graph, count = model.graph, 0
    for node in list(graph):
        weight = constant_of(node.inputs[1]) if node.op_type == "ConvTranspose" else None
        if weight is None or weight.dtype != np.float32 or weight.ndim != 4 or node.domain not in ("", "ai.onnx"):
            continue
        bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(0)
        phases = _phases(node, weight.shape)
        if phases is None or bias is None or node.outputs[0].shape is None:
            continue
        _rewrite(graph, node, phases, np.asarray(weight, np.float32), np.asarray(bias, np.float32))
        count += 1
    note = f"{count} ConvTranspose written as convolutions and DepthToSpace, for which the runtime has integer kernels"
    return [note] if count else []


def _phases(node: ir.Node, shape: tuple[int, ...]) -> _Phases | None:
    """How ``node``, with a weight of ``shape`` [inputs, outputs, rows, columns], is written; None where it stays."""
    attributes = node.attributes
    strides = list(attributes.get_ints("strides", [1, 1]))
    plain = list(attributes.get_ints("dilations", [1, 1])) == [1, 1] and attributes.get_int("group", 1) == 1
    automatic = attributes.get_string("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in attributes
    if not plain or automatic or len(strides) != 2 or strides[0] != strides[1] or shape[2] != shape[3]:
        return None
    stride, kernel = int(strides[0]), int(shape[2])
    taps = kernel // stride
    if stride < 2 or kernel % stride or taps < 2:
        return None
    begin, end = np.array(attributes.get_ints("pads", [0] * 4)).reshape(2, 2)
    more = np.array(attributes.get_ints("output_padding", [0, 0]))
    first = begin // stride  # the first m // s
    pads_behind = (kernel - 1 - end + more) // stride
    pads = [*(taps - 1 - first), *pads_behind]
    cut_in_front = begin - stride * first
    # rows made: s (L + pads - T + 1); rows wanted: s (L - 1) + kernel - begin - end + more
    made_more = stride * (np.array(pads[:2]) + pads_behind - taps + 2) - kernel + begin + end - more
    cut = [*cut_in_front, *(made_more - cut_in_front)]
    if min(*pads, *cut) < 0:
        return None
    return _Phases(stride=stride, taps=taps, pads=tuple(map(int, pads)), cut=tuple(map(int, cut)))


def _rewrite(graph: ir.Graph, node: ir.Node, phases: _Phases, weight: np.ndarray, bias: np.ndarray) -> None:
    s, t = phases.stride, phases.taps
    inputs, outputs = weight.shape[:2]
    # [inputs, outputs, t, s, t, s], taps turned round -> [s, s, outputs, inputs, t, t]
    parts = weight.reshape(inputs, outputs, t, s, t, s)[:, :, ::-1, :, ::-1, :].transpose(3, 5, 1, 0, 2, 4)
    operands = [node.inputs[0], add_initializer(graph, f"{node.name}_phases", parts.reshape(-1, inputs, t, t).copy())]
    if bias.size:
        operands.append(add_initializer(graph, f"{node.name}_phases_bias", np.tile(bias, s * s)))
    name, old = node.name or "ConvTranspose", node.outputs[0]
    attributes = {"kernel_shape": [t, t], "pads": list(phases.pads)}
    nodes = [ir.node("Conv", operands, attributes=attributes, name=name)]
    reader = reader_of(old)
    activation = reader[0] if reader is not None and reader[0].op_type in _ACTIVATIONS and reader[1] == 0 else None
    if activation is not None:
        ends = [nodes[-1].outputs[0], *activation.inputs[1:]]
        nodes.append(ir.Node("", activation.op_type, ends, activation.attributes.values(), name=activation.name))
        old = activation.outputs[0]
    pixels = ir.node("DepthToSpace", [nodes[-1].outputs[0]], attributes={"blocksize": s}, name=part_of(name, "pixels"))
    nodes.append(pixels)
    if any(phases.cut):
        front, behind = np.array(phases.cut).reshape(2, 2)
        stops = np.where(behind > 0, -behind, np.iinfo(np.int64).max)
        ends = [
            add_initializer(graph, f"{name}_{what}", np.asarray(v, np.int64))
            for what, v in (("starts", front), ("stops", stops), ("axes", np.array([2, 3])))
        ]
        nodes.append(ir.node("Slice", [pixels.outputs[0], *ends], name=part_of(name, "cut")))
    graph.insert_before(node if activation is None else activation, nodes)
    for made in nodes[:-1]:
        made.outputs[0].name, made.outputs[0].type = f"{made.name}_result", old.type
    take_over(nodes[-1].outputs[0], old)
    graph.remove([activation, node] if activation is not None else [node], safe=True)
