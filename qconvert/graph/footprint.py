"""How much memory values take for a given feed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from qconvert.errors import ModelError
from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of, with_outputs

FLOAT_BYTES = 4


def value_bytes(model: Model, names: Sequence[str], feed: Feed) -> dict[str, int]:
    """Bytes that float32 values of the main graph take when the model runs on ``feed``.

    Shapes come from the graph, its symbolic dimensions bound by the feed; where these leave one open, the model is run
    once with the shapes alone as outputs. A value whose size cannot be found out either way is left out.
    """
    values = {v.name: v for node in model.ir.graph for v in node.outputs}
    bound = _bound(model, feed)
    counts: dict[str, int] = {}
    for name in names:
        count = _count(values[name].shape, bound)
        if count is not None:
            counts[name] = count
    missing = [name for name in names if name not in counts]
    if missing:
        counts.update(_probed(model, missing, feed))
    return {name: count * FLOAT_BYTES for name, count in counts.items()}


def _bound(model: Model, feed: Feed) -> dict[str, int]:
    """Symbolic dimension -> its size in ``feed``."""
    found: dict[str, int] = {}
    for value in model.ir.graph.inputs:
        if value.shape is None or value.name is None or value.name not in feed:
            continue
        for dim, size in zip(value.shape, feed[value.name].shape, strict=False):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                found[dim.value] = size
    return found


def _count(shape: ir.Shape | None, bound: Mapping[str, int]) -> int | None:
    if shape is None:
        return None
    dims = [d if isinstance(d, int) else bound.get(d.value or "") for d in shape]
    known = [d for d in dims if d is not None]
    return math.prod(known) if len(known) == len(dims) else None


def _probed(model: Model, names: Sequence[str], feed: Feed) -> dict[str, int]:
    """Elements of each value, by running the model with a Size node on each of them."""
    copy = with_outputs(model, names)
    graph = copy.ir.graph
    nodes = [ir.node("Size", [value]) for value in graph.outputs]
    for i, node in enumerate(nodes):
        node.outputs[0].name = f"qconvert_size_{i}"
        node.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        node.outputs[0].shape = ir.Shape(())
    graph.extend(nodes)
    graph.outputs[:] = [node.outputs[0] for node in nodes]
    try:
        sizes = session_of(copy, optimize=False).run_on(feed)
    except ModelError:
        return {}
    return {name: int(size) for name, size in zip(names, sizes, strict=True)}
