"""Weights that stay float, stored in 16 bits as the model had them.

    w (float32) -> operator     ->     w_fp16 -> Cast -> operator

A model that computes in float16 is prepared in float32 (:mod:`qconvert.graph.prepare.widen`), which would make what
stays float twice as large. ONNX Runtime folds the Cast when it loads the model, before its other optimizations. Scales,
and constants that 16 bits do not hold, stay as they are.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.emit.half import decodes
from qconvert.graph.model import Model
from qconvert.graph.prepare.widen import half_constants
from qconvert.graph.quantized import is_quantized_op
from qconvert.graph.size import constants_by_type
from qconvert.graph.spool import Spool

_TYPES = {
    "float16": (ir.DataType.FLOAT16, np.dtype(np.float16)),
    "bfloat16": (ir.DataType.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
# What a Cast takes in the file besides the names, which are there three times: its own, and what it reads and makes.
_NODE_BYTES, _NAMES = 60, 3


def narrow(model: Model, canonical: Model, source: Model, spool: Spool | None = None) -> frozenset[str]:
    """Store float weights of ``model`` in the 16 bits that ``source`` has for its own, in place; give their names.

    Args:
        model: what was made of ``canonical``.
        canonical: the prepared model. What preparing has computed of its weights anew is rounded; all else is stored
            in 16 bits only if these hold it exactly.
        source: the model as it was read.
        spool: where large weights are kept until the model is written; None: in memory.
    """
    kind = half_constants(source)
    if not kind:
        return frozenset()
    done = set[str]()
    dtype, numpy_type = _TYPES[kind]
    computed = computed_weights(canonical, source)
    additions = Additions(model=model.ir, spool=spool)
    for graph in list(model.ir.graphs()):
        for value in list(graph.initializers.values()):
            if not _may_be_narrow(value):
                continue
            array = _as_half(value, numpy_type, rounds=value.name in computed)
            first = next(iter(graph), None)
            if array is None or first is None:
                continue
            name = value.name or "weight"
            done.add(name)
            del graph.initializers[name]
            stored = additions.constant(graph, f"{name}_{kind}", array, dtype)
            cast = ir.node("Cast", [stored], attributes={"to": int(ir.DataType.FLOAT)})
            cast.name = additions.fresh(f"{name}_Cast")
            graph.insert_before(first, cast)
            ir.convenience.replace_all_uses_with(value, cast.outputs[0])
            cast.outputs[0].name = name
            stored.type = stored.shape = None  # its data say the same
    return frozenset(done)


def computed_weights(canonical: Model, source: Model) -> frozenset[str]:
    """Names of the float32 constants of ``canonical`` that ``source`` does not hold as float32."""
    before = constants_by_type(source)
    return frozenset(
        name for name, kind in constants_by_type(canonical).items() if kind == "FLOAT" and before.get(name) != "FLOAT"
    )


def _may_be_narrow(value: ir.Value) -> bool:
    """Whether ``value`` is a float32 constant that is no scale, and large enough for a Cast to pay."""
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or value.is_graph_input() or value.is_graph_output():
        return False
    if 2 * tensor.size <= _NODE_BYTES + _NAMES * len(value.name or ""):
        return False
    readers = [use.node for use in value.uses()]
    return bool(readers) and not any(is_quantized_op(node.op_type) or decodes(node) for node in readers)


def _as_half(value: ir.Value, dtype: np.dtype[np.generic], *, rounds: bool) -> NDArray[np.generic] | None:
    """The constant in 16 bits; None where these do not hold it."""
    real = value.const_value.numpy() if value.const_value is not None else np.zeros(0, np.float32)
    with np.errstate(over="ignore"):
        half = np.asarray(real.astype(dtype), order="C")
        if rounds:
            held = np.array_equal(np.isfinite(half), np.isfinite(real))
        else:
            held = np.array_equal(half.astype(np.float32), real, equal_nan=True)
    return half if held else None
