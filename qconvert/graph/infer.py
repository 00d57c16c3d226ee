"""Types and shapes of every value: ONNX's inference first, ONNX Runtime's for what it leaves open."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from qconvert.errors import ModelError
from qconvert.graph.model import Model
from qconvert.graph.signature import session_of


def infer_types(model: Model, *, load: bool = True) -> None:
    """Fill in the type and shape of the main graph's values, in place, as far as they can be known; ``load``: by ONNX
    Runtime, too, which takes the memory of the weights."""
    every = [v for node in ir.traversal.RecursiveGraphIterator(model.ir.graph) for v in node.outputs]
    untyped = [v for v in every if v.type is None]
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model.ir)
    for value in untyped:
        if _may_be_sequence(value, model.opset):  # onnx-ir's pass takes sequences and optionals for tensors
            value.type = value.shape = None
    open_values = [v for node in model.ir.graph for v in node.outputs if v.name and (v.type is None or v.shape is None)]
    if not open_values or not load:
        return
    try:
        session = session_of(model, optimize=False, outputs=[v.name for v in open_values if v.name])
    except ModelError:
        return  # the values stay unknown and their nodes float; the plan says so
    for value, spec in zip(open_values, session.outputs, strict=True):
        if not spec.is_tensor:
            continue
        if value.type is None and spec.dtype != "str":
            value.type = ir.TensorType(
                ir.DataType[spec.dtype.upper().replace("FLOAT32", "FLOAT").replace("FLOAT64", "DOUBLE")]
            )
        # ONNX Runtime gives () both for a scalar and for an unknown rank, so () teaches nothing
        if value.shape is None and spec.shape:
            value.shape = ir.Shape(spec.shape)


def _may_be_sequence(value: ir.Value, opset: int) -> bool:
    """Whether the operator that makes ``value`` can make something else than a tensor there."""
    node, index = value.producer(), value.index() or 0
    if node is None or node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, opset):
        return False
    if node.op_type == "Identity" and node.inputs[0] is not None and isinstance(node.inputs[0].type, ir.TensorType):
        return False
    outputs = onnx.defs.get_schema(node.op_type, opset).outputs
    port = outputs[min(index, len(outputs) - 1)]
    return any(not t.startswith("tensor(") for t in port.types)
