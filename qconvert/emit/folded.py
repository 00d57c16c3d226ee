"""Convolutions on integers that read pixels of a row as channels (:mod:`qconvert.plan.folding`), written into QDQ.

    codes -> DQ -> Conv(DQ(W), DQ(b)) -> Q -> codes     becomes
    codes -> channels last -> fold -> channels first -> DQ -> Conv(DQ(W'), DQ(b')) -> Q
          -> channels last -> unfold -> channels first -> codes

All between is on the codes, standard operators, and right on any runtime. ONNX Runtime runs integer convolutions
channels last and takes the pairs of Transposes away, which leaves two Reshapes that move nothing.

Rows whose length is no multiple of the pixels, or not known, are filled up with the zero point, which is what the
convolution pads with, and the result is cut to the length that it has.

An input of the model lies channels first. There the pixels of a row are taken together before channels go last, [...,
c, width / pixels, pixels] -> [..., width / pixels, c, pixels]: that moves some bytes at once, and takes a third of the
time. Channels of W' are in that order then.

W' has many zeros, so it is not stored: a few operators make it of W, which ONNX Runtime computes once, when it loads
the model. With rows of L = taps x pixels weights, s the stride,

    W [c_out, c_in, height, width] -> Pad to rows of L + s -> Tile, results times -> Slice to results x L

moves each copy by s against the one before, because rows of L + s are read as rows of L; the zeros are long enough for
what comes round. Of a W in g groups, [c_out / g, g, c_in / g, ...] -> Pad to rows of c_in + c_in / g -> Slice to g x
c_in likewise puts the filters of every group at its own channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from qconvert.emit.additions import Additions
from qconvert.errors import InternalError
from qconvert.graph.edit import constant_of, take_over
from qconvert.plan.folding import Fold

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def write_folded(node: ir.Node, fold: Fold, additions: Additions) -> None:
    """Fold the convolution ``node``, which stands between pairs, in place.

    Args:
        node: named in the plan.
        fold: how.
        additions: where nodes and constants go.

    Raises:
        InternalError: it does not, though its plan says so.
    """
    graph, uses = node.graph, list(node.outputs[0].uses())
    quantizer = uses[0].node if len(uses) == 1 else None
    pairs = [v.producer() if v is not None else None for v in node.inputs]
    between = all(n is not None and n.op_type == "DequantizeLinear" for n in pairs)
    if not between or quantizer is None or quantizer.op_type != "QuantizeLinear" or not isinstance(graph, ir.Graph):
        raise InternalError(f"{node.name} does not stand between pairs, as its plan says")
    _Writer(graph=graph, node=node, fold=fold, additions=additions).write([n for n in pairs if n], quantizer)


def _is_given(codes: ir.Value | None) -> bool:
    """Whether ``codes`` are those of an input of the model with several channels."""
    quantizer = codes.producer() if codes is not None else None
    source = quantizer.inputs[0] if quantizer is not None and quantizer.op_type == "QuantizeLinear" else None
    several = source is not None and source.shape is not None and source.shape[1] != 1
    return source is not None and source.is_graph_input() and several


@dataclass(slots=True, kw_only=True)
class _Writer:
    graph: ir.Graph
    node: ir.Node
    fold: Fold
    additions: Additions

    def write(self, pairs: Sequence[ir.Node], quantizer: ir.Node) -> None:
        """``pairs``: what dequantizes input, weight and, where there is one, bias."""
        node, fold, add = self.node, self.fold, self.additions.node
        source, weight, *bias = pairs
        codes = constant_of(weight.inputs[0])
        if codes is None:
            raise InternalError(f"the weights of {node.name} are no constants")
        channels_out, _, height, _ = codes.shape
        node.attributes.pop("group", None)
        if fold.pixels == 1:
            node.replace_input_with(1, self._dequantized(weight, self._dense(weight.inputs[0], codes.shape)))
            return
        given = _is_given(source.inputs[0])
        width = self._width(source.inputs[0]) if fold.filled else None
        x = self._folded(source, given=given, width=width)
        folded = self._weight(weight.inputs[0], codes.shape, (3, 0, 1, 5, 2, 4) if given else (3, 0, 5, 1, 2, 4))
        inputs = [
            add(node, "DequantizeLinear", [x, *source.inputs[1:]], name="Fold"),
            self._dequantized(weight, folded),
            *(self._dequantized(b, self._tiled(b.inputs[0])) for b in bias),
        ]
        for port, value in enumerate(inputs):
            node.replace_input_with(port, value)
        attributes = node.attributes
        strides, pads = attributes.get_ints("strides", [1, 1]), attributes.get_ints("pads", [0] * 4)
        for name, ints in {
            "kernel_shape": [height, fold.taps],
            "strides": [strides[0], 1],
            "pads": [pads[0], fold.pads[0], pads[2], fold.pads[1]],
        }.items():
            attributes[name] = ir.AttrInt64s(name, ints)
        quantized = add(quantizer, "QuantizeLinear", [node.outputs[0], *quantizer.inputs[1:]], name="Fold")
        last = add(quantizer, "Transpose", [quantized], {"perm": TO_LAST}, name="Fold")
        last = add(quantizer, "Reshape", [last, self.additions.sizes_of([0, 0, -1, channels_out])], name="Fold")
        if width is not None:
            ends = [self.additions.sizes_of([0]), self._result_width(width), self.additions.sizes_of([2])]
            last = add(quantizer, "Slice", [last, *ends], name="Fold")
        result = add(quantizer, "Transpose", [last], {"perm": TO_FIRST}, name="Fold")
        take_over(result, quantizer.outputs[0])
        self.graph.remove(quantizer, safe=True)

    def _folded(self, source: ir.Node, *, given: bool, width: ir.Value | None) -> ir.Value:
        """The codes that ``source`` dequantizes, folded; channels first."""
        fold, add, node = self.fold, self.additions.node, self.node
        last = source.inputs[0]
        if width is not None:
            less = add(node, "Neg", [width], name="Fold")
            missing = add(node, "Mod", [less, self.additions.sizes_of([fold.pixels])], name="Fold")
            pads = add(node, "Concat", [self.additions.sizes_of([0] * 7), missing], {"axis": 0}, name="Fold")
            last = add(node, "Pad", [last, pads, *source.inputs[2:]], name="Fold")
        if given:
            last = add(node, "Reshape", [last, self.additions.sizes_of([0, 0, 0, -1, fold.pixels])], name="Fold")
            last = add(node, "Transpose", [last], {"perm": (0, 2, 3, 1, 4)}, name="Fold")
            shape = [0, 0, 0, fold.pixels * fold.channels]
        else:
            last = add(node, "Transpose", [last], {"perm": TO_LAST}, name="Fold")
            shape = [0, 0, -1, fold.pixels * fold.channels]
        rows = add(node, "Reshape", [last, self.additions.sizes_of(shape)], name="Fold")
        return add(node, "Transpose", [rows], {"perm": TO_FIRST}, name="Fold")

    def _width(self, codes: ir.Value | None) -> ir.Value:
        """The pixels in a row of ``codes``, [1]."""
        shape = self.additions.node(self.node, "Shape", [codes], name="Fold")
        return self.additions.node(self.node, "Gather", [shape, self.additions.sizes_of([3])], name="Fold")

    def _result_width(self, width: ir.Value) -> ir.Value:
        """(width + pads - filter) div stride + 1, [1]."""
        fold, add = self.fold, self.additions.node
        value = add(self.node, "Add", [width, self.additions.sizes_of([fold.longer + fold.stride])], name="Fold")
        return (
            value
            if fold.stride == 1
            else add(self.node, "Div", [value, self.additions.sizes_of([fold.stride])], name="Fold")
        )

    def _weight(self, codes: ir.Value | None, shape: Sequence[int], order: Sequence[int]) -> ir.Value:
        """[results x c_out, pixels x c_in, height, taps]; ``order`` of [c_out, c_in, height, results, taps, pixels]."""
        fold, (channels_out, channels, height, width) = self.fold, shape
        if fold.channels != channels:
            codes = self._dense(codes, shape)
        row = fold.taps * fold.pixels
        behind = row + fold.stride - fold.offset - width
        codes = self._constant("Pad", codes, [0, 0, 0, fold.offset, 0, 0, 0, behind])
        codes = self._constant("Tile", codes, [1, 1, 1, fold.results])
        codes = self._cut(codes, fold.results * row, axis=3)
        parts = [channels_out, fold.channels, height, fold.results, fold.taps, fold.pixels]
        codes = self._constant("Reshape", codes, parts)
        codes = self._turned(codes, order)
        return self._constant(
            "Reshape", codes, [fold.results * channels_out, fold.pixels * fold.channels, height, fold.taps]
        )

    def _dense(self, codes: ir.Value | None, shape: Sequence[int]) -> ir.Value:
        """[c_out, c_in, height, width] of a weight in groups."""
        (filters, each, height, width), channels = shape, self.fold.channels
        groups = channels // each
        codes = self._constant("Reshape", codes, [groups, filters // groups, each, height, width])
        codes = self._turned(codes, (1, 0, 2, 3, 4))
        codes = self._constant("Pad", codes, [0, 0, 0, 0, 0, 0, 0, channels, 0, 0])
        codes = self._constant("Reshape", codes, [filters // groups, groups * (channels + each), height, width])
        codes = self._cut(codes, groups * channels, axis=1)
        codes = self._constant("Reshape", codes, [filters // groups, groups, channels, height, width])
        codes = self._turned(codes, (1, 0, 2, 3, 4))
        return self._constant("Reshape", codes, [filters, channels, height, width])

    def _turned(self, codes: ir.Value, order: Sequence[int]) -> ir.Value:
        return self.additions.node(self.node, "Transpose", [codes], {"perm": order}, name="Fold")

    def _dequantized(self, old: ir.Node, codes: ir.Value) -> ir.Value:
        """``codes`` in place of the constant that ``old`` dequantizes, of a channel for every result of a row."""
        numbers = [codes, *(self._tiled(v) for v in old.inputs[1:])]
        return self.additions.dequantized(self.node, old, numbers, name="Fold")

    def _tiled(self, value: ir.Value | None) -> ir.Value:
        """A constant of one number, or of a number a channel for every result of a row."""
        numbers = constant_of(value)
        if value is None or numbers is None:
            raise InternalError(f"what {self.node.name} reads is no constant")
        many = numbers.ndim and self.fold.results > 1
        return self._constant("Tile", value, [self.fold.results]) if many else value

    def _cut(self, codes: ir.Value, most: int, *, axis: int) -> ir.Value:
        ends = [self.additions.sizes_of([i]) for i in (0, most, axis)]
        return self.additions.node(self.node, "Slice", [codes, *ends], name="Fold")

    def _constant(self, op_type: str, codes: ir.Value | None, numbers: Sequence[int]) -> ir.Value:
        return self.additions.node(self.node, op_type, [codes, self.additions.sizes_of(numbers)], name="Fold")
