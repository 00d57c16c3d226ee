"""How many weights are exactly zero: of a float model, and of the integer codes made from it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import constant_of
from qconvert.graph.model import Model

# Constants of fewer numbers, or of one axis, are no weights.
_LEAST = 512
_CODES = (ir.DataType.INT8, ir.DataType.UINT8)
# A share below this is chance.
_LEAST_SHARE = 0.01


def sparsity_note(before: Model, after: Model) -> tuple[str, ...]:
    """What became of the zeros of ``before`` in ``after``, static int8 in any form, in words; () if it has none."""
    share = _share(before)
    if share < _LEAST_SHARE:
        return ()
    return (f"sparsity: {100 * share:.1f} % of the weights are zero, {100 * _share(after):.1f} % of the stored ones",)


def _share(model: Model) -> float:
    """The share of zeros among all weights."""
    count = zeros = 0
    for is_zero in _weights(model):
        count += is_zero.size
        zeros += int(np.count_nonzero(is_zero))
    return zeros / max(1, count)


def _weights(model: Model) -> Iterator[NDArray[np.bool_]]:
    """Of each weight: which of its numbers are zero."""
    for graph in model.ir.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or len(tensor.shape) < 2 or tensor.size < _LEAST:
                continue
            if tensor.dtype == ir.DataType.FLOAT:
                yield tensor.numpy() == 0
            elif tensor.dtype in _CODES and (zero := _zero_point(value, tensor.numpy().shape)) is not None:
                yield tensor.numpy() == zero


def _zero_point(codes: ir.Value, shape: tuple[int, ...]) -> NDArray[np.generic] | None:
    """The zero point of ``codes``, to be compared with them; None where no operator says it.

    DequantizeLinear, QLinearConv, QLinearMatMul, QGemm and MatMulInteger all have it two inputs after the codes.
    """
    for use in codes.uses():
        node, port = use.node, use.idx
        if node.op_type == "Transpose":
            zero = _zero_point(node.outputs[0], ())
        else:
            zero = constant_of(node.inputs[port + 2]) if port + 2 < len(node.inputs) else None
        if zero is None:
            continue
        if (zero == zero.reshape(-1)[:1]).all():
            return zero.reshape(-1)[:1]
        axis = next((i for i, size in enumerate(shape) if size == zero.size), None)
        if axis is not None:
            return zero.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return None
