"""Channels added between convolutions on integers (:mod:`qconvert.plan.widening`), written into QDQ.

Filters, scales and biases are stored as they were; Pad makes the rest, which ONNX Runtime computes once, when it loads
the model: zeros for filters and biases, the last scale again for scales, so that biases keep the scale s_x s_w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from qconvert.emit.additions import Additions
from qconvert.errors import InternalError
from qconvert.graph.edit import constant_of
from qconvert.plan.model import Widening


def write_widened(
    nodes: Mapping[str, ir.Node],
    region: Widening,
    additions: Additions,
) -> None:
    """Add the channels of ``region``, in place.

    Args:
        nodes: by name; convolutions stand between pairs.
        region: what gets how many.
        additions: where nodes and constants go.

    Raises:
        InternalError: a convolution does not stand between pairs, though its plan says so.
    """
    for name in (*region.producers, *region.depthwise):
        node = nodes[name]
        writer = _Writer(node=node, additions=additions)
        more = region.channels - writer.shape()[0]
        for port in range(1, len(node.inputs)):
            writer.widen(port, more, axis=0, scales=True)
        if name in region.depthwise:
            node.attributes["group"] = ir.AttrInt64("group", region.channels)
    for name in region.consumers:
        writer = _Writer(node=nodes[name], additions=additions)
        writer.widen(1, region.channels - writer.shape()[1], axis=1, scales=False)


@dataclass(slots=True, kw_only=True)
class _Writer:
    node: ir.Node
    additions: Additions

    def shape(self) -> Sequence[int]:
        """Of the weight."""
        codes = self._pair(1).inputs[0]
        if codes is None or codes.shape is None:
            raise InternalError(f"the weights of {self.node.name} are no constants")
        return [int(d) for d in codes.shape if isinstance(d, int)]

    def widen(self, port: int, more: int, *, axis: int, scales: bool) -> None:
        """Add ``more`` rows along ``axis`` to the constant at ``port``; with ``scales``, to its scales, too."""
        if self.node.inputs[port] is None:
            return
        pair = self._pair(port)
        inputs = [self._padded(pair.inputs[0], more, axis, "constant")]
        inputs += [self._padded(v, more, 0, "edge") if scales else v for v in pair.inputs[1:]]
        self.node.replace_input_with(port, self.additions.dequantized(self.node, pair, inputs, name="Wide"))

    def _padded(self, value: ir.Value | None, more: int, axis: int, mode: str) -> ir.Value | None:
        rank = len(value.shape) if value is not None and value.shape is not None else 0
        if rank == 0:
            return value
        pads = [0] * (2 * rank)
        pads[rank + axis] = more
        padded = self.additions.node(
            self.node, "Pad", [value, self.additions.sizes_of(pads)], {"mode": mode}, name="Wide"
        )
        padded.shape = None if value is None or value.shape is None else _longer(value.shape, axis, more)
        return padded

    def _pair(self, port: int) -> ir.Node:
        value = self.node.inputs[port]
        pair = value.producer() if value is not None else None
        if pair is None or pair.op_type != "DequantizeLinear" or (port == 1 and _is_computed(pair.inputs[0])):
            raise InternalError(f"{self.node.name} does not stand between pairs, as its plan says")
        return pair


def _is_computed(codes: ir.Value | None) -> bool:
    """Whether ``codes`` are neither a constant nor one that was given more channels."""
    maker = codes.producer() if codes is not None else None
    return constant_of(codes) is None and (maker is None or maker.op_type != "Pad")


def _longer(shape: ir.Shape, axis: int, more: int) -> ir.Shape:
    sizes = [int(d) if isinstance(d, int) else 0 for d in shape]
    return ir.Shape([d + more if i == axis else d for i, d in enumerate(sizes)])
