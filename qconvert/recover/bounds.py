"""Bounds of a net's values, channel by channel, that hold for every input: interval arithmetic on the weights.

    y = W x + b,  l <= x <= h      b + sum_i min(W_i l_i, W_i h_i)  <=  y  <=  b + sum_i max(W_i l_i, W_i h_i)

A Clip starts such a chain, since its result is bounded whatever it reads; so do Sigmoid and its kin. Bounds are those
of tensors whose channels lie on axis 1, [N, C, ...]; where nothing is known they are infinite. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.view import GraphView, NodeView
from qconvert.recover.layers import Layer, clip_range

Vector = NDArray[np.float64]

_SAME = ("Identity", "Dropout", "MaxPool", "GlobalMaxPool", "GlobalAveragePool")
_SQUASHED = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
# Float sums of a run may pass an exact bound by a little.
_SLACK = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bounds:
    """``low`` and ``high`` of each channel, [C]."""

    low: Vector
    high: Vector

    @classmethod
    def unknown(cls, channels: int) -> Bounds:
        """What is always true."""
        return cls(low=np.full(channels, -np.inf), high=np.full(channels, np.inf))

    def within(self, low: float, high: float) -> Bounds:
        """After a clamp."""
        return Bounds(low=np.clip(self.low, low, high), high=np.clip(self.high, low, high))

    def or_zero(self) -> Bounds:
        """Of these values and zeros between them, which padding puts there."""
        return Bounds(low=np.minimum(self.low, 0.0), high=np.maximum(self.high, 0.0))


def channel_bounds(graph: GraphView, layers: Mapping[str, Layer]) -> dict[str, Bounds]:
    """Bounds of the tensors of ``graph`` of which something is known.

    Args:
        graph: the canonical graph.
        layers: its layers (:func:`qconvert.recover.layers.find_layers`).
    """
    found: dict[str, Bounds] = {}
    for node in graph.nodes.values():
        bounds = _of(graph, layers, node, found)
        if bounds is not None:
            found[node.outputs[0]] = bounds
    return found


def _of(graph: GraphView, layers: Mapping[str, Layer], node: NodeView, found: Mapping[str, Bounds]) -> Bounds | None:
    """Bounds of the first output of ``node``; None where nothing is known of it."""
    if node.domain not in ("", "ai.onnx") or not node.inputs:
        return None
    channels = _channels(graph, node.outputs[0])
    before = found.get(node.inputs[0] or "")
    layer = layers.get(node.name)
    if layer is not None and layer.op_type in ("Conv", "Gemm"):
        return _through(graph, layer, node, before)
    if node.op_type in _SAME:
        return before
    if node.op_type == "AveragePool":
        return before.or_zero() if before is not None else None
    if channels is None:
        return None
    if node.op_type in _SQUASHED:
        return Bounds.unknown(channels).within(*_SQUASHED[node.op_type])
    if node.op_type in ("Relu", "Clip"):
        ends = (0.0, np.inf) if node.op_type == "Relu" else clip_range(graph, node)
        return (before or Bounds.unknown(channels)).within(*ends) if ends is not None else before
    if node.op_type == "Add":
        other = found.get(node.input(1) or "")
        ranks = {graph.tensors[t or ""].rank for t in node.inputs}
        if before is not None and other is not None and len(ranks) == 1 and before.low.size == other.low.size:
            return Bounds(low=before.low + other.low, high=before.high + other.high)
    return None


def _through(graph: GraphView, layer: Layer, node: NodeView, before: Bounds | None) -> Bounds | None:
    weight = np.asarray(graph.constant(node.inputs[1] or ""), np.float32)
    taps = layer.by_inputs(weight).astype(np.float64)  # [inputs, outputs a group, taps]
    read = before or Bounds.unknown(taps.shape[0])
    if read.low.size != taps.shape[0]:
        return None
    if layer.op_type == "Conv":
        read = read.or_zero()
    low, high = (ends.reshape(-1, 1, 1) for ends in (read.low, read.high))
    with np.errstate(invalid="ignore"):  # 0 times inf, which is 0 here
        ends = np.where(taps == 0, 0.0, taps * low), np.where(taps == 0, 0.0, taps * high)
    bias = np.zeros(layer.outputs(weight))
    if layer.has_bias:
        bias = np.asarray(graph.constant(node.inputs[2] or ""), np.float64).reshape(-1)

    def summed(each: Vector) -> Vector:
        """[inputs, outputs a group, taps] -> [outputs]."""
        grouped = each.sum(axis=2).reshape(layer.group, -1, each.shape[1])
        return np.asarray(grouped.sum(axis=1).reshape(-1), np.float64)

    sizes = [np.where(np.isfinite(end), np.abs(end), 0.0) for end in ends]
    slack = _SLACK * (np.abs(bias) + summed(np.maximum(*sizes)))
    return Bounds(low=bias + summed(np.minimum(*ends)) - slack, high=bias + summed(np.maximum(*ends)) + slack)


def _channels(graph: GraphView, tensor: str) -> int | None:
    shape = graph.tensors[tensor].shape
    return shape[1] if shape is not None and len(shape) > 1 and isinstance(shape[1], int) else None
