"""Equal initializers become one, so that tied weights are stored once.

onnx-ir has a pass for this, which reads every weight in full; here a few bytes of each tell most tensors apart, and
only those that agree in them are read, so that the weights of a large model stay on disk.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.model import unmap

# Bytes at the start, in the middle and at the end that are compared first.
_PROBE = 256


def merge_equal_initializers(model: ir.Model) -> None:
    """Let every reader of an initializer of the main graph read the first one of the same content. In place."""
    graph = model.graph
    first: dict[tuple[object, ...], list[ir.Value]] = {}
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output() or tensor.dtype == ir.DataType.STRING:
            continue
        data = _bytes(tensor)
        middle = data.size // 2
        probe = (data[:_PROBE].tobytes(), data[middle : middle + _PROBE].tobytes(), data[-_PROBE:].tobytes())
        known = first.setdefault((tensor.dtype, tuple(tensor.shape.numpy()), probe), [])
        same = next((v for v in known if v.const_value is not None and _equal(v.const_value, data)), None)
        if same is None:
            known.append(value)
        else:
            ir.convenience.replace_all_uses_with(value, same)
            del graph.initializers[value.name or ""]
        del data
        unmap(tensor)


def _bytes(tensor: ir.TensorProtocol) -> NDArray[np.uint8]:
    """The content, flat: a view where possible."""
    array = np.ascontiguousarray(tensor.numpy())
    return array.reshape(-1).view(np.uint8)


def _equal(tensor: ir.TensorProtocol, data: NDArray[np.uint8]) -> bool:
    same = bool(np.array_equal(_bytes(tensor), data))
    unmap(tensor)
    return same
