"""What a runtime makes of constants when it loads a model, computed here.

:mod:`qconvert.emit.folded` and :mod:`qconvert.emit.widened` store filters, scales and biases as they were, and write
the operators that make others of them. Only what they write is computed: other models have operators of constants, too,
with inputs and attributes that these never have, and those are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import constant_of

Array = NDArray[np.generic]


def computed(node: ir.Node) -> Array | None:
    """The result of ``node``; None where it is not made of constants, or not in a way that is known here."""
    make = _MAKERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if make is None:  # before any weight is read
        return None
    values = [constant_of(value) for value in node.inputs]
    if not values or values[0] is None or any(v is None for v in values):
        return None
    numbers = [[int(n) for n in v.reshape(-1)] for v in values[1:] if v is not None and v.dtype == np.int64]
    if len(numbers) < len(values) - 1:
        return None
    return make(values[0], numbers, node)


def _padded(array: Array, numbers: Sequence[list[int]], node: ir.Node) -> Array | None:
    mode = node.attributes.get_string("mode", "constant")
    if len(numbers) != 1 or len(numbers[0]) != 2 * array.ndim or min(numbers[0], default=0) < 0:
        return None
    ends = list(zip(numbers[0][: array.ndim], numbers[0][array.ndim :], strict=True))
    if mode == "constant":
        return np.pad(array, ends)
    return np.pad(array, ends, mode="edge") if mode == "edge" and array.size else None


def _tiled(array: Array, numbers: Sequence[list[int]], node: ir.Node) -> Array | None:
    del node
    return np.tile(array, numbers[0]) if len(numbers) == 1 and len(numbers[0]) == array.ndim else None


def _sliced(array: Array, numbers: Sequence[list[int]], node: ir.Node) -> Array | None:
    del node
    if [len(n) for n in numbers] != [1, 1, 1]:
        return None
    (start,), (end,), (axis,) = numbers
    inside = 0 <= axis < array.ndim and 0 <= start <= end <= array.shape[axis]
    return array.take(range(start, end), axis) if inside else None


def _reshaped(array: Array, numbers: Sequence[list[int]], node: ir.Node) -> Array | None:
    del node
    return array.reshape(numbers[0]) if len(numbers) == 1 and min(numbers[0], default=0) > 0 else None


def _turned(array: Array, numbers: Sequence[list[int]], node: ir.Node) -> Array | None:
    order = node.attributes.get_ints("perm", [])
    return array.transpose(order) if not numbers and sorted(order) == list(range(array.ndim)) else None


_MAKERS: dict[str, Callable[[Array, Sequence[list[int]], ir.Node], Array | None]] = {
    "Pad": _padded,
    "Tile": _tiled,
    "Slice": _sliced,
    "Reshape": _reshaped,
    "Transpose": _turned,
}
