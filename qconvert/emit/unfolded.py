"""Convolutions as products of what their filters read and their weights, quantized as the model runs.

    x [N, C, ...] -> channels last -> DynamicQuantizeLinear -> pad -> patches [N, ..., taps x C]
      -> MatMulInteger(patches, W [taps x C, O]) -> Cast -> Mul(s_x * s_w) -> Add(b) -> channels first

Patches are taken along one axis after the other, the last one first: of each axis a Slice for each of its taps, with
the stride of the convolution, and a Concat along the channels. All of that moves bytes, which takes little beside the
product, for which ONNX Runtime has a fast kernel (MatMulIntegerToFloat, 1.32); ConvInteger, what it makes of a
convolution itself, takes 5 to 20 times as long.

What comes of one such convolution through elementwise operators into another stays channels last: the pair of
Transposes meets, and ONNX Runtime takes it away. Elsewhere codes are turned, which are a quarter of the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qconvert.emit.additions import Additions
from qconvert.errors import InternalError
from qconvert.graph.edit import constant_of, take_over

Codes = tuple[ir.Value, ir.Value, ir.Value]
"""Codes, scale and zero point."""

# Through these, with one input that is computed, ONNX Runtime moves a Transpose.
_ELEMENTWISE = frozenset(
    {"Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Elu", "HardSigmoid", "HardSwish", "Identity"}
)
_END = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfolder:
    """Writes convolutions into one graph.

    Attributes:
        graph: where they stand.
        additions: where nodes and constants go.
        quantized: gives what DynamicQuantizeLinear makes of a value, once for each, before a node.
        turned: results of convolutions that were written, which are Transposes.
    """

    graph: ir.Graph
    additions: Additions
    quantized: Callable[[ir.Value, ir.Node], Codes]
    turned: set[ir.Value]

    def write(self, node: ir.Node, codes: ir.Value | None, scale: ir.Value | None) -> None:
        """Write ``node``, a Conv of one group, in place.

        Args:
            node: without auto_pad.
            codes, scale: of its weight, constants: [O, C, taps ...] and [O], or one scale for all.

        Raises:
            InternalError: it is none, though its plan says so.
        """
        weight, scales, value = constant_of(codes), constant_of(scale), node.inputs[0]
        if weight is None or scales is None or value is None:
            raise InternalError(f"{node.name} does not multiply with a constant weight, as its plan says")
        name, add, rank = node.name or "Conv", self.additions.node, weight.ndim - 2
        codes_last, x_scale, x_zero = self._codes_last(value, node, rank)
        patches = self._patches(node, codes_last, x_zero, weight.shape[2:])
        rows = np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, weight.shape[0])
        columns = self.additions.columns(self.graph, f"{name}_rows", rows, scales)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        result = self.additions.integer_product(node, (patches, x_scale, x_zero), columns, bias, name=name)
        last = add(node, "Transpose", [result], {"perm": _to_first(rank)}, name=f"{name}_first")
        self.turned.add(last)
        take_over(last, node.outputs[0])
        self.graph.remove(node, safe=True)

    def _codes_last(self, value: ir.Value, node: ir.Node, rank: int) -> Codes:
        """The codes of ``value``, channels last."""
        add = self.additions.node
        if self._is_turned(value):
            turned = add(node, "Transpose", [value], {"perm": _to_last(rank)}, name=f"{node.name}_last")
            return self.quantized(turned, node)
        codes, scale, zero = self.quantized(value, node)
        return add(node, "Transpose", [codes], {"perm": _to_last(rank)}, name=f"{node.name}_last"), scale, zero

    def _is_turned(self, value: ir.Value) -> bool:
        while value not in self.turned:
            maker = value.producer()
            computed = [v for v in maker.inputs if v is not None and constant_of(v) is None] if maker else []
            if maker is None or maker.op_type not in _ELEMENTWISE or len(computed) != 1:
                return False
            value = computed[0]
        return True

    def _patches(self, node: ir.Node, codes: ir.Value, zero: ir.Value, taps: Sequence[int]) -> ir.Value:
        """Patches [N, ..., taps x C] of ``codes`` [N, ..., C], padded with ``zero``."""
        add, rank, name = self.additions.node, len(taps), node.name or "Conv"
        pads = node.attributes.get_ints("pads", [0] * 2 * rank)
        strides, dilations = (node.attributes.get_ints(a, [1] * rank) for a in ("strides", "dilations"))
        if any(pads):
            widths = self.additions.sizes_of([0, *pads[:rank], 0, 0, *pads[rank:], 0])
            codes = add(node, "Pad", [codes, widths, zero], name=f"{name}_Pad")
        for axis in reversed(range(rank)):
            if taps[axis] == 1 and strides[axis] == 1:
                continue
            parts = []
            for tap in range(taps[axis]):
                behind = (taps[axis] - 1 - tap) * dilations[axis]
                ends = (tap * dilations[axis], -behind if behind else _END, 1 + axis, strides[axis])
                sizes = [self.additions.sizes_of([number]) for number in ends]
                parts.append(add(node, "Slice", [codes, *sizes], name=f"{name}_Slice"))
            codes = parts[0] if len(parts) == 1 else add(node, "Concat", parts, {"axis": -1}, name=f"{name}_Concat")
        return codes


def _to_last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, 2 + rank), 1)


def _to_first(rank: int) -> tuple[int, ...]:
    return (0, 1 + rank, *range(1, 1 + rank))
