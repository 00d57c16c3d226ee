"""What convolutions take, by their shape (:class:`~qconvert.targets.target.ConvolutionCosts`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qconvert.graph.view import GraphView, NodeView
from qconvert.targets.target import ConvolutionCosts

# Pixels of a row of an image, where that is known only when the model runs.
_IMAGE = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionShape:
    """A convolution.

    Attributes:
        pixels: of the result, those of a known batch together.
        taps: of a filter.
        channels_in: that each filter reads.
        channels_out: filters.
        groups: that the channels are in.
    """

    pixels: int
    taps: int
    channels_in: int
    channels_out: int
    groups: int = 1

    @property
    def depthwise(self) -> bool:
        """Whether every channel has one filter of its own."""
        return self.groups > 1 and self.channels_in == 1 and self.channels_out == self.groups


def shape_of(graph: GraphView, node: NodeView, unknown: int = 0) -> ConvolutionShape | None:
    """The shape of a Conv of ``graph``; None when a size other than the batch is unknown.

    ``unknown``: what to take for sizes of the result that are unknown; 0 for nothing.
    """
    weight, out = graph.tensors.get(node.input(1) or ""), graph.tensors.get(node.outputs[0])
    if weight is None or out is None or weight.shape is None or out.shape is None:
        return None
    sizes = [d for d in weight.shape if isinstance(d, int)]
    space = [d if isinstance(d, int) and d > 0 else unknown for d in out.shape[2:]]
    if len(sizes) < 3 or len(sizes) != len(weight.shape) or len(space) != len(sizes) - 2 or not all(space):
        return None
    batch = max(1, out.shape[0]) if isinstance(out.shape[0], int) else 1
    return ConvolutionShape(
        pixels=batch * math.prod(space),
        taps=math.prod(sizes[2:]),
        channels_in=sizes[1],
        channels_out=sizes[0],
        groups=node.attr_int("group", 1),
    )


def assumed_shape(graph: GraphView, node: NodeView) -> ConvolutionShape | None:
    """:func:`shape_of`, where unknown sizes are those of an image."""
    return shape_of(graph, node) or shape_of(graph, node, max(1, _IMAGE // _strides(graph, node)))


def _strides(graph: GraphView, node: NodeView) -> int:
    """By how much the rows have been shortened from an input of the model to the result of ``node``."""
    found, seen = 1, set[str]()
    current: NodeView | None = node
    while current is not None and current.name not in seen:
        seen.add(current.name)
        found *= (*current.attr_ints("strides"), 1, 1)[1]
        current = graph.producer(current.input(0) or "")
    return found


def convolution_ns(shape: ConvolutionShape, costs: ConvolutionCosts, *, integer: bool) -> float:
    """Nanoseconds for ``shape`` in float or on integers."""
    groups, channels_out = shape.groups, shape.channels_out // shape.groups
    if shape.depthwise:
        groups, channels_out = 1, shape.channels_out
    counted = math.ceil(channels_out / costs.lane) * costs.lane
    if not integer:
        kernel = costs.depthwise_float if shape.depthwise else costs.dense_float
    elif shape.depthwise:
        kernel = next(k for divisor, k in costs.depthwise if channels_out % divisor == 0)
        counted = channels_out
    else:
        direct = groups == 1 and is_direct(shape.channels_in, channels_out, costs)
        kernel = costs.direct if direct else costs.gathered
    each = kernel.ns(
        pixels=shape.pixels,
        taps=shape.taps,
        channels_in=shape.channels_in,
        channels_out=channels_out,
        products=shape.pixels * shape.taps * shape.channels_in * counted,
    )
    return kernel.call_ns + groups * (each - kernel.call_ns)


def unfolded_ns(shape: ConvolutionShape, costs: ConvolutionCosts) -> float:
    """Nanoseconds for ``shape``, of one group, quantized as the model runs; infinite where that is not known."""
    if costs.unfolded is None:
        return math.inf
    counted = math.ceil(shape.channels_out / costs.lane) * costs.lane
    return costs.unfolded.ns(
        pixels=shape.pixels,
        taps=shape.taps,
        channels_in=shape.channels_in,
        channels_out=shape.channels_out,
        products=shape.pixels * shape.taps * shape.channels_in * counted,
    )


def is_direct(channels_in: int, channels_out: int, costs: ConvolutionCosts) -> bool:
    """Whether the integer kernel of a dense convolution reads its input where it lies."""
    return channels_in % costs.direct_in == 0 and channels_out >= costs.direct_out
