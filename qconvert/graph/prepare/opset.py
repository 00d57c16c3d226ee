"""Change the default operator set where the quantized form, or ONNX Runtime's kernels for it, need another one."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import onnx
import onnx.version_converter
import onnx_ir as ir
import onnxscript.version_converter

from qconvert.errors import ModelError
from qconvert.graph.model import Model
from qconvert.graph.session import open_session

# The last version of QuantizeLinear that ONNX Runtime has had from its first release with 16-bit types on.
_SURE = 21


def raise_opset(model: ir.Model, least: int, notes: list[str]) -> None:
    """Bring ``model`` to opset ``least`` if it is older, in place; onnxscript's converter, ONNX's own below opset 18.

    Raises:
        ModelError: the converters cannot do it.
    """
    now = model.opset_imports.get("", 0)
    if now >= least or now == 0:
        return
    folder = next((t.base_dir for t in _external(model)), None)
    try:
        onnxscript.version_converter.convert_version(model, least, fallback=True)
    except Exception as error:  # ONNX's converter raises RuntimeError and more
        raise ModelError(f"the opset cannot be raised from {now} to {least}: {str(error)[:200]}") from error
    if model.opset_imports.get("", 0) < least:
        raise ModelError(f"the opset could not be raised from {now} to {least}")
    if folder is not None:  # ONNX's own converter, the fallback, hands out weights that know no folder
        ir.external_data.set_base_dir(model.graph, folder)
    notes.append(f"opset raised from {now} to {model.opset_imports['']}")


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Tensors on disk: initializers, and the values of Constant nodes, where PaddlePaddle has all its weights."""
    for graph in model.graphs():
        constants = [n.attributes["value"].value for n in graph if n.op_type == "Constant" and "value" in n.attributes]
        for tensor in (*(v.const_value for v in graph.initializers.values()), *constants):
            if isinstance(tensor, ir.ExternalTensor):
                yield tensor


def lower_opset(model: Model, notes: list[str]) -> Model:
    """``model`` at the newest opset for which ONNX Runtime has the quantizing operators; itself where it is no newer.

    ONNX brings out an operator set before ONNX Runtime implements it in full; a model that uses nothing new of it says
    the same in the set before. Where ONNX's converter cannot say it, the model stays as it is.
    """
    now = model.opset
    most = next((v for v in range(now, _SURE, -1) if _has_kernels(v)), _SURE) if now > _SURE else now
    if most == now:
        return model
    try:
        lowered = onnx.version_converter.convert_version(onnx.load_model_from_string(model.to_bytes()), most)
        notes.append(f"opset lowered from {now} to {most}, the newest whose quantizing operators ONNX Runtime has")
        return Model(ir=ir.from_proto(lowered), path=model.path)
    except Exception:  # ONNX's converter raises RuntimeError and more; what stays new is refused, or not, when it runs
        return model


@functools.cache
def _has_kernels(opset: int) -> bool:
    """Whether ONNX Runtime can run QuantizeLinear of ``opset``."""
    scale = onnx.helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [1.0])
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.UINT8, [], [0])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
        "probe",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, [1])],
        [scale, zero],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    try:
        open_session(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString())
    except ModelError:
        return False
    return True
