"""Convolutions whose kernel is fast only with enough channels: pixels of a row count as channels.

Channels-last, ``pixels`` neighbours of a row with C channels each lie in memory as one pixel with ``pixels`` x C
channels, so this costs no copy. A convolution with stride s along the row makes ``results`` = pixels / s neighbours of
its result from each such pixel and a few around it:

    result j results + o, tap k    reads pixel    s (j results + o) - pad + k d
                                                = pixels (j + g) + q        with g = (s o - pad + k d) div pixels
                                                                                 q = (s o - pad + k d) mod pixels

so its weight is at output channel (o, c_out), input channel (q, c_in), tap g, and all others are zero. The sums have
the same products in them, so the result is the same, to the bit. A convolution with groups becomes a dense one so,
whose groups do not read each other: with few channels in each that is faster, too, and then also without folding.

Source: com.microsoft.QLinearConv of ONNX Runtime 1.32 gathers its input pixel by pixel and multiplies a matrix, unless
input channels are a multiple of 4 and output channels at least 16; then MLAS reads the input where it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qconvert.graph.view import GraphView, NodeView
from qconvert.plan.convolutions import ConvolutionShape, assumed_shape, convolution_ns, is_direct
from qconvert.targets.target import ConvolutionCosts

# A change of shape, which moves nothing; filling rows up and cutting them off, and a copy of an element.
_RESHAPE_NS = 2000.0
_FILL_NS, _COPY_NS = 12000.0, 0.05
# By how much a folded convolution has to be estimated faster.
_MARGIN, _MARGIN_NS = 1.1, 2000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """How the rows of one convolution are folded.

    Attributes:
        pixels, results: pixels of the input's and of the result's rows that are one; 1 where only groups become one.
        taps: how many along the folded row.
        pads: folded pixels before and behind each row.
        filled: whether rows are filled up to a multiple of ``pixels``, with what the convolution pads with, and what
            comes of that cut off again: they are of another length, or of one that is known when the model runs.
        longer: by how much a row's padding is longer than the filter; less than 0.
        channels: what each of these pixels of the input has.
        stride: along the rows as they were.
        offset: where in a folded row the weights of the first result begin, in pixels.
        ns, plain_ns: estimates of the time folded, and as it is.
    """

    pixels: int
    results: int
    taps: int
    pads: tuple[int, int]
    filled: bool
    longer: int
    channels: int
    stride: int
    offset: int
    ns: float
    plain_ns: float

    @property
    def pays(self) -> bool:
        """Whether it is faster by more than estimates are off."""
        return self.ns * _MARGIN + _MARGIN_NS < self.plain_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A convolution of two dimensions, as far as folding goes.

    Attributes:
        weight: [c_out, c_in, height, width] of the weight, depthwise ones made dense.
        width, result_width: pixels in a row of the input and of the result, where they are known.
        stride: along the row.
        pads: in front of it and behind it.
    """

    weight: tuple[int, int, int, int]
    width: int | None
    result_width: int | None
    stride: int
    pads: tuple[int, int]


def fold_of(graph: GraphView, node: NodeView, costs: ConvolutionCosts | None) -> Fold | None:
    """How to fold ``node`` so that it takes least; None for what cannot be folded.

    Args:
        graph: the node's.
        node: any.
        costs: of the target; None where nothing is known.
    """
    if costs is None or not costs.folds:
        return None
    row = _row(graph, node)
    shape = assumed_shape(graph, node) if row is not None else None
    if row is None or shape is None:
        return None
    return min(_folds(row, shape, costs), key=lambda fold: fold.ns, default=None)


def _row(graph: GraphView, node: NodeView) -> _Row | None:
    """What is known of ``node``; None where it is no convolution of two dimensions, or one that skips pixels."""
    weight = graph.tensors.get(node.input(1) or "")
    if node.op_type != "Conv" or node.attr_str("auto_pad", "NOTSET") != "NOTSET" or weight is None:
        return None
    sizes = [d for d in weight.shape or () if isinstance(d, int)]
    pads = node.attr_ints("pads", (0, 0, 0, 0))
    if len(sizes) != 4 or node.attr_ints("dilations", (1, 1))[1] != 1 or pads[1] < 0 or pads[3] < 0:
        return None
    width, result_width = (_last(graph, t) for t in (node.input(0), node.outputs[0]))
    return _Row(
        weight=(sizes[0], sizes[1] * node.attr_int("group", 1), sizes[2], sizes[3]),
        width=width,
        result_width=result_width,
        stride=node.attr_ints("strides", (1, 1))[1],
        pads=(pads[1], pads[3]),
    )


def _last(graph: GraphView, tensor: str | None) -> int | None:
    """The last of four sizes of ``tensor``, where it is known."""
    view = graph.tensors.get(tensor or "")
    shape = (view.shape or ()) if view is not None else ()
    width = shape[3] if len(shape) == 4 else None
    return width if isinstance(width, int) and width > 0 else None


def _folds(row: _Row, shape: ConvolutionShape, costs: ConvolutionCosts) -> Iterator[Fold]:
    """The ways to fold ``row`` after which the kernel is fast."""
    channels_out, channels_in, height, width = row.weight
    longer = sum(row.pads) - width
    if shape.groups > 1 and is_direct(channels_in, channels_out, costs):
        yield _made_dense(row, shape, costs)
    slow = shape.groups > 1 or not is_direct(channels_in, channels_out, costs)
    for pixels in costs.folds if slow and longer < 0 else ():
        results = pixels // row.stride
        if pixels % row.stride or not is_direct(pixels * channels_in, results * channels_out, costs):
            continue
        first = -row.pads[0] // pixels
        last = (row.stride * (results - 1) - row.pads[0] + width - 1) // pixels
        if last < 0:
            continue  # only the padding is read
        whole = row.width is not None and row.result_width is not None and row.result_width * row.stride == row.width
        filled = not whole or (row.width or 0) % pixels != 0
        folded = ConvolutionShape(
            pixels=-(-shape.pixels // results),
            taps=height * (last - first + 1),
            channels_in=pixels * channels_in,
            channels_out=results * channels_out,
        )
        copied = shape.pixels * (row.stride**2 * channels_in + channels_out)
        yield Fold(
            pixels=pixels,
            results=results,
            taps=last - first + 1,
            pads=(-first, last),
            filled=filled,
            longer=longer,
            channels=channels_in,
            stride=row.stride,
            offset=-row.pads[0] - first * pixels,
            ns=convolution_ns(folded, costs, integer=True)
            + 2 * _RESHAPE_NS
            + (_FILL_NS + copied * _COPY_NS if filled else 0.0),
            plain_ns=convolution_ns(shape, costs, integer=True),
        )


def _made_dense(row: _Row, shape: ConvolutionShape, costs: ConvolutionCosts) -> Fold:
    """Groups as one, pixels as they are."""
    _, channels_in, _, width = row.weight
    dense = replace(shape, channels_in=channels_in, groups=1)
    return Fold(
        pixels=1,
        results=1,
        taps=width,
        pads=row.pads,
        filled=False,
        longer=sum(row.pads) - width,
        channels=channels_in,
        stride=row.stride,
        offset=0,
        ns=convolution_ns(dense, costs, integer=True),
        plain_ns=convolution_ns(shape, costs, integer=True),
    )
